"""The description of the API, and the page for people."""

import re

import httpx
import yaml


def test_every_endpoint_is_described(rest: httpx.Client) -> None:
    """With words, answers, and an example for each body; every reference leads somewhere."""
    described = rest.get("/schema/openapi.json").json()
    assert described["openapi"].startswith("3.")
    paths = described["paths"]
    for path in ("claraaetitle", "sourceaetitle", "destinationaetitle", "pipeline"):
        assert paths[f"/api/config/{path}"].keys() == {"get", "post"}
        assert paths[f"/api/config/{path}/{{name}}"].keys() == {"get", "put", "delete"}
    for path in ("/api/jobs", "/api/jobs/retry", "/api/quarantine", "/health/live", "/health/status", "/metrics"):
        assert path in paths
    for path, operations in paths.items():
        for method, operation in operations.items():
            assert operation["description"], f"{method} {path}"
            error = operation["responses"]["default"]["content"]["application/problem+json"]
            assert error["example"].keys() <= described["components"]["schemas"]["Problem"]["properties"].keys()
            assert all(code < "4" for code in operation["responses"].keys() - {"default"})
            if path.startswith("/api/config") and method in ("post", "put"):
                media = operation["requestBody"]["content"]["application/json"]
                assert media["examples"]["example"]["value"]
    references = set(re.findall(r'"#/components/schemas/([^"]+)"', rest.get("/schema/openapi.json").text))
    assert references <= described["components"]["schemas"].keys()
    assert described["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"


def test_examples_are_valid(rest: httpx.Client) -> None:
    """The documented body of each POST is taken as it stands."""
    for path, operations in rest.get("/schema/openapi.json").json()["paths"].items():
        if path.startswith("/api/config") and "post" in operations:
            media = operations["post"]["requestBody"]["content"]["application/json"]
            made = rest.post(path, json=media["examples"]["example"]["value"])
            assert made.status_code == 201, f"{path}: {made.text}"


def test_yaml_says_the_same(rest: httpx.Client) -> None:
    assert yaml.safe_load(rest.get("/schema/openapi.yaml").text) == rest.get("/schema/openapi.json").json()


def test_page_needs_nothing_from_outside(rest: httpx.Client) -> None:
    """It lists the endpoints with calls that can be copied; all it loads or links is here."""
    for path in ("/", "/docs"):
        answer = rest.get(path)
        assert answer.headers["content-type"].startswith("text/html")
        assert "/api/config/claraaetitle" in answer.text
        assert "-d &#x27;{" in answer.text
        assert not re.search(r"<script|<link|@import|url\(", answer.text)
        links = re.findall(r'(?:href|src)="([^"]+)"', answer.text)
        assert links
        assert all(rest.get(link).status_code == 200 for link in links)
