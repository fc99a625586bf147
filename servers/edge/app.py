"""Builds the HTTP application: its routes, what wraps them, its OpenAPI document and its pages."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.middleware.gzip import DEFAULT_EXCLUDED_CONTENT_TYPES, GZipMiddleware
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from k2 import limits
from servers.edge import routes_platform, routes_rows, routes_shapes
from servers.edge.access import DEVELOPMENT_KEY, AccessGuard
from servers.edge.head_answers import HeadAnswers
from servers.edge.parts import EdgeParts
from servers.edge.problems import KEY_HEADER, ProblemDocument, add_handlers
from servers.http_telemetry import HttpTelemetry

ASSETS: Final = Path(__file__).parent / "assets"
PAGE: Final = ASSETS / "page" / "index.html"
_PAGE_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
}
_SWAGGER: Final = "/assets/swagger"
_GZIP_LEVEL: Final = 5
_PACKED: Final = ("application/vnd.apache.arrow.stream", "application/vnd.apache.parquet")
_ABOUT: Final = f"""\
Market trades from lake and tail as one table, exactly once, as of any moment.

* Ranges are half-open: `start` is the first time inside, `end` the first outside.
* Prices, quantities and 64-bit integers are strings, so that no digit is lost.
* Every answer carries its provenance. Its `token`, given as `as_of`, asks for the same rows again
  at any later time. `next_cursor` does so for the next page; forms other than JSON have it as the
  header `k2-next-cursor`.
* Failures are `application/problem+json` with a `reason` that programs may rely on.
* From this machine and its trusted networks no key is needed. The development key
  `{DEVELOPMENT_KEY}` is public, and works from there only.
* HEAD is answered as GET, without the body. A request whose line and headers are larger than
  {limits.EDGE_REQUEST_BYTES_MAX // 1024} KiB is refused with 431.
"""


def make_app(parts: EdgeParts) -> FastAPI:
    """Make the application; nothing is asked of K2 before a request is."""
    app = FastAPI(
        title="K2",
        version=version("k2-lakehouse"),
        description=_ABOUT,
        docs_url=None,
        redoc_url=None,
        separate_input_output_schemas=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.parts = parts
    app.include_router(routes_platform.router)
    app.include_router(routes_rows.router)
    app.include_router(routes_rows.router_live)
    app.include_router(routes_shapes.router)
    app.include_router(routes_shapes.router_live)
    _add_pages(app)
    add_handlers(app)
    # The last one added is outermost.
    app.add_middleware(
        GZipMiddleware,
        compresslevel=_GZIP_LEVEL,
        exclude_content_types=(*DEFAULT_EXCLUDED_CONTENT_TYPES, *_PACKED),
    )
    app.add_middleware(AccessGuard, trusted=parts.trusted)
    app.add_middleware(HeadAnswers)
    app.add_middleware(
        HttpTelemetry,
        clock=parts.clock,
        templates=lambda: document(app)["paths"],
        tally=parts.tally,
    )
    return app


def document(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document; the key is optional in it."""
    made = app.openapi()
    components = made.setdefault("components", {})
    components["schemas"][ProblemDocument.__name__] = ProblemDocument.model_json_schema()
    schemes = components.setdefault("securitySchemes", {})
    schemes["key"] = {
        "type": "apiKey",
        "in": "header",
        "name": KEY_HEADER,
        "description": f"optional where a request is taken at all; `{DEVELOPMENT_KEY}` is one",
    }
    made["security"] = [{}, {"key": []}]
    for methods in made["paths"].values():
        for operation in methods.values():
            for parameter in operation.get("parameters", ()):
                parameter["schema"] = _without_null(parameter["schema"])
    return made


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a parameter, which may be absent but never null."""
    rest = {name: value for name, value in schema.items() if name != "anyOf"}
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    return rest | kinds[0] if len(kinds) == 1 else schema


def _add_pages(app: FastAPI) -> None:
    """Add what people look at: the page, the documentation, their assets."""

    async def page() -> Response:
        if not PAGE.exists():
            return RedirectResponse("/docs")
        return FileResponse(PAGE, headers=_PAGE_HEADERS)

    async def docs() -> Response:
        return get_swagger_ui_html(
            openapi_url="/openapi.json",
            title="K2 API",
            swagger_js_url=f"{_SWAGGER}/swagger-ui-bundle.js",
            swagger_css_url=f"{_SWAGGER}/swagger-ui.css",
            swagger_favicon_url=f"{_SWAGGER}/favicon-32x32.png",
            swagger_ui_parameters={"validatorUrl": None},
        )

    app.add_api_route("/", page, include_in_schema=False)
    app.add_api_route("/docs", docs, include_in_schema=False)
    app.mount("/assets", StaticFiles(directory=ASSETS))
