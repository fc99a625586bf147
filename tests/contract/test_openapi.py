"""The committed OpenAPI document is that of the HTTP edge."""

from scripts import openapi


def test_the_document_is_as_the_code_has_it():
    assert openapi.FILE.read_text() == openapi.text(), (
        "run python -m scripts.openapi and review the difference"
    )
