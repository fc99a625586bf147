import pytest

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


@pytest.mark.parametrize("name", ["swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png"])
def test_what_the_documentation_loads_is_here(http, name):
    answer = http.get(f"/assets/swagger/{name}")
    assert answer.status_code == 200
    tag = {"If-None-Match": answer.headers["ETag"]}
    assert http.get(f"/assets/swagger/{name}", headers=tag).status_code == 304


def test_the_page_loads_nothing_from_elsewhere_and_stands_in_no_frame(http):
    page = http.get("/")
    assert page.status_code == 200
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy


def test_no_other_file_is(http):
    assert http.get("/assets/swagger/../../app.py").status_code == 404
    assert http.get("/assets/%2e%2e/app.py").status_code == 404


def test_the_documentation_needs_no_other_host(http):
    page = http.get("/docs").text
    assert "http://" not in page
    assert "https://" not in page
    assert "/assets/swagger/swagger-ui-bundle.js" in page
