"""Job processors of other packages at the API: what they do wrong is a problem of their AE title alone."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from protocol.access import AccessFile
from tests import plug_ins
from tests.actors.api.surroundings import Surroundings
from tests.actors.launcher import wait_until

CHECK_SECONDS = 3.0


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {**plug_ins.install_wayward(tmp_path), "DICOM_ADAPTER_PLUGIN_CHECK_SECONDS": str(CHECK_SECONDS)}


@pytest.fixture
def running(tmp_path: Path, environment: dict[str, str]) -> Iterator[Surroundings]:
    with Surroundings(tmp_path, environment=environment) as started:
        yield started


def post(running: Surroundings, title: str, tmp_path: Path, **settings: str) -> httpx.Response:
    told = {"pipeline": "id", "directory": str(tmp_path), **settings}
    body = {"aeTitle": title, "processor": "wayward", "processorSettings": told}
    return running.rest.post("/api/config/claraaetitle", json=body)


def tags(running: Surroundings) -> dict[str, tuple[str, ...]]:
    """What the extractors are to read, by AE title."""
    return {rule.ae_title: rule.tags for rule in AccessFile(running.access).current().ae_titles}


def test_misdeeds_are_told_as_problems(running: Surroundings, tmp_path: Path) -> None:
    assert post(running, "GOOD", tmp_path).status_code == 201
    assert tags(running) == {"GOOD": ("0020000D",)}
    for step, how, told in (
        ("validate", "crash", "it was ended by SIGSEGV"),
        ("init", "leave", "it exited with code 3"),
        ("init", "raise_an_error", "it raised KeyError"),
        ("validate", "talk_nonsense", "it said what nobody understands"),
    ):
        (tmp_path / step).write_text(how)
        answer = post(running, "BAD", tmp_path)
        (tmp_path / step).unlink()
        sentence = f"processor: 'wayward' could not check its settings ({told}): mend the plug-in"
        assert (answer.status_code, answer.json()["detail"]) == (400, sentence)
        assert "SECRET" not in answer.text
    wrong = post(running, "BAD", tmp_path, seconds="nan")
    assert (wrong.status_code, "timeout_seconds is nan" in wrong.json()["detail"]) == (400, True)
    assert tags(running) == {"GOOD": ("0020000D",)}


def test_an_endless_loop_holds_nobody_else_up(running: Surroundings, tmp_path: Path) -> None:
    """More of them than may run at once; other requests are answered meanwhile."""
    (tmp_path / "validate").write_text("loop")
    with ThreadPoolExecutor(6) as threads:
        checks = [threads.submit(post, running, f"BAD{number}", tmp_path) for number in range(6)]
        answered = 0
        while not any(check.done() for check in checks):
            body = {"aeTitle": f"OWN{answered}", "processorSettings": {"pipeline-a": "p"}}
            assert running.rest.post("/api/config/claraaetitle", json=body).status_code == 201
            answered += 1
        answers = [check.result() for check in checks]
    assert answered > 0
    assert sorted(answer.status_code for answer in answers) == [400] * 4 + [503] * 2
    late = next(answer for answer in answers if answer.status_code == 400)
    assert f"it did not answer in {CHECK_SECONDS:g} s" in late.json()["detail"]


def test_at_the_start_a_loop_leaves_what_was_known(tmp_path: Path, environment: dict[str, str]) -> None:
    """What it groups by is found out later, when it is mended."""
    with Surroundings(tmp_path, environment=environment) as running:
        assert post(running, "WARD", tmp_path).status_code == 201
        assert post(running, "NEW", tmp_path).status_code == 201
        access = AccessFile(running.access)
        known = access.current()
        access.replace(type(known)(ae_titles=known.ae_titles[1:]))  # of NEW nothing is known
    (tmp_path / "init").write_text("loop")
    with Surroundings(tmp_path, environment=environment) as running:
        body = {"aeTitle": "OWN", "processorSettings": {"pipeline-a": "p"}}
        assert running.rest.post("/api/config/claraaetitle", json=body).status_code == 201
        assert tags(running) == {"WARD": ("0020000D",), "NEW": (), "OWN": ("0020000D",)}
        running.api.wait_for_log("job_processor_failed", count=2)
        (tmp_path / "init").unlink()
        wait_until(lambda: tags(running)["NEW"] == ("0020000D",), "what NEW groups by")
