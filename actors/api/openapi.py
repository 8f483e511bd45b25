"""How the REST API describes itself: OpenAPI, and a page for people that needs nothing from outside."""

import html
from dataclasses import dataclass
from typing import Any

import msgspec
import yaml
from litestar import Litestar, Request
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, YamlRenderPlugin
from litestar.openapi.spec import (
    Components,
    Example,
    OpenAPIMediaType,
    Operation,
    Reference,
    RequestBody,
    Schema,
    SecurityScheme,
)

from actors.api.problems import MEDIA_TYPE, InvalidError, Problem

_EXAMPLE = InvalidError(["hostIp is blank: addresses, networks such as 10.20.30.0/24, or host names"]).problem
JSON_PATH = "/schema/openapi.json"
YAML_PATH = "/schema/openapi.yaml"


class _Json(JsonRenderPlugin):
    """The description with what Litestar does not know of errors."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        return self.render_json(request, _with_problems(openapi_schema))


class _Yaml(YamlRenderPlugin):
    """What the JSON says, as YAML; Litestar's own rendering writes Python's tuples, which no other reader knows."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        plain = msgspec.json.decode(self.render_json(request, _with_problems(openapi_schema)))
        return yaml.safe_dump(plain, sort_keys=False, encoding="utf-8")


def body(example: dict[str, Any], *, entity: str = "", about: str = "") -> type[Operation]:
    """An operation with a JSON body, which is read from the request as it came and so must be described here.

    Args:
        example: one body.
        entity: the component's name of the schema; "" describes the body by its example alone.
        about: what is special about it.
    """
    schema = Reference(ref=f"#/components/schemas/{entity}") if entity else Schema(example=example)

    @dataclass
    class WithBody(Operation):
        def __post_init__(self) -> None:
            media_type = OpenAPIMediaType(schema=schema, examples={"example": Example(value=example)})
            self.request_body = RequestBody(
                content={"application/json": media_type}, required=True, description=about or None
            )

    return WithBody


def configuration(version: str) -> OpenAPIConfig:
    """What Litestar needs to describe the API."""
    return OpenAPIConfig(
        title="DICOM adapter",
        version=version,
        description="Configuration, jobs, quarantine, health and metrics. Errors are problem details (RFC 9457).",
        path="/schema",
        render_plugins=[_Json(path="/openapi.json"), _Yaml(path="/openapi.yaml")],
        use_handler_docstrings=True,
        security=[{}, {"bearer": []}],
        components=Components(
            security_schemes={
                "bearer": SecurityScheme(type="http", scheme="bearer", description="Needed from beyond loopback.")
            }
        ),
    )


def _with_problems(described: dict[str, Any]) -> dict[str, Any]:
    """A description in which every error is a problem; Litestar tells of its own exceptions, which nobody gets."""
    (schema,), components = msgspec.json.schema_components([Problem], ref_template="#/components/schemas/{name}")
    content = {MEDIA_TYPE: {"schema": schema, "example": msgspec.to_builtins(_EXAMPLE)}}
    error = {"description": "An error: what is wrong, and the remedy.", "content": content}

    def amend(operation: dict[str, Any]) -> dict[str, Any]:
        answers = {code: told for code, told in operation["responses"].items() if int(code) < 400}
        summary = operation.get("description", "").partition(".")[0] or operation.get("summary", "")
        return {**operation, "summary": summary, "responses": {**answers, "default": error}}

    paths = {
        path: {method: amend(operation) for method, operation in operations.items()}
        for path, operations in described["paths"].items()
    }
    schemas = {**described["components"].get("schemas", {}), **components}
    return {**described, "paths": paths, "components": {**described["components"], "schemas": schemas}}


def page(app: Litestar, base_url: str) -> str:
    """All endpoints with an example call each, as HTML.

    Args:
        app: whose endpoints.
        base_url: for the examples.
    """
    sections: list[str] = []
    described = app.openapi_schema.to_schema()
    for path, operations in sorted(described["paths"].items()):
        for method, operation in operations.items():
            call = _call(method.upper(), base_url + path, operation)
            about = operation.get("description") or operation.get("summary") or ""
            sections.append(
                f"<section><h2><b>{method.upper()}</b> {html.escape(path)}</h2>"
                f"<p>{html.escape(about)}</p><pre>{html.escape(call)}</pre></section>"
            )
    return _PAGE.replace("SECTIONS", "\n".join(sections))


def _call(method: str, url: str, operation: dict[str, Any]) -> str:
    words = ["curl", *(["-X", method] if method != "GET" else []), url]
    for media in operation.get("requestBody", {}).get("content", {}).values():
        example = msgspec.json.encode(media["examples"]["example"]["value"]).decode()
        words += ["-H 'Content-Type: application/json'", f"-d '{example}'"]
    return " ".join(words)


_PAGE = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>DICOM adapter</title>
<style>
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24 }}
h2 {{ font: 600 1rem ui-monospace, monospace; margin: 1.5rem 0 0 }}
b {{ display: inline-block; min-width: 4.5rem; color: #0550ae }}
p {{ margin: .2rem 0 }}
pre {{ background: #f3f4f6; padding: .5rem .8rem; overflow-x: auto; border-radius: .3rem }}
</style></head><body>
<h1>DICOM adapter</h1>
<p>Machine-readable: <a href="{JSON_PATH}">OpenAPI as JSON</a>, <a href="{YAML_PATH}">as YAML</a>.
Paths and JSON names are read in any case. Errors are problem details (RFC 9457).
From beyond loopback send <code>Authorization: Bearer TOKEN</code>.</p>
SECTIONS
</body></html>
"""
