from servers.edge.app import document


def test_a_key_is_optional_in_the_document(http):
    made = document(http.app)
    assert made["security"] == [{}, {"key": []}]
    assert made["components"]["securitySchemes"]["key"]["name"] == "X-API-Key"


def test_no_path_promises_an_answer_that_is_not_given(http):
    for path, methods in document(http.app)["paths"].items():
        for operation in methods.values():
            assert "422" not in operation["responses"], path
            assert operation["summary"]


def test_the_documentation_needs_no_other_host(http):
    page = http.get("/docs").text
    assert "http://" not in page
    assert "https://" not in page
    assert "/assets/swagger/swagger-ui-bundle.js" in page
