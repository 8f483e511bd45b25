"""Paths in any case, keys as they were written."""

import httpx
import pytest

from actors.api.paths import AnyCase

TEMPLATES = (
    (),
    ("api", "jobs"),
    ("api", "jobs", None),
    ("api", "jobs", "retry"),
    ("api", "jobs", None, "retry"),
    ("health", "live"),
)


async def nothing(*_: object) -> None: ...


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", "/"),
        ("/API/Jobs", "/api/jobs"),
        ("/api/jobs/", "/api/jobs"),
        ("//api//jobs", "/api/jobs"),
        ("/Api/Jobs/AbC", "/api/jobs/AbC"),
        ("/api/jobs/RETRY", "/api/jobs/retry"),
        ("/api/jobs/A%2FB/Retry", "/api/jobs/A%2FB/retry"),
        ("/api/%6aobs", "/api/jobs"),
        ("/unknown/Path", "/unknown/Path"),
        ("/Health/live/more", "/Health/live/more"),
    ],
)
def test_rewritten(path: str, expected: str) -> None:
    assert AnyCase(nothing, TEMPLATES).rewritten(path) == expected


def test_keys_are_decoded_once(rest: httpx.Client) -> None:
    """A key may hold what separates paths, or what looks encoded."""
    for name, encoded in (("a/b", "a%2Fb"), ("a%2Fb", "a%252Fb"), ("ä b", "%C3%A4%20b"), ("..", "%2E%2E")):
        body = {"name": name, "aeTitle": "A", "hostIp": "h", "port": 1}
        made = rest.post("/api/config/destinationaetitle", json=body)
        assert made.status_code == 201, made.text
        if name != "..":
            assert rest.get(f"/api/config/destinationaetitle/{encoded}").json()["name"] == name
            assert rest.get(made.headers["location"]).json()["name"] == name
            assert rest.delete(made.headers["location"]).json()["name"] == name
