"""The search for patient data in logs finds it, and fails a session whose tests all pass."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import patients

_REPOSITORY = Path(__file__).resolve().parent.parent
_TEXT = "2026-01-31 12:00:00.000 {level}: adapter.platform [platform] run_ended reason={told}"


@pytest.mark.parametrize(
    "told",
    [
        patients.PATIENT_NAME,
        "Dear mrs. zzyzxowski",
        "/spool/payloads/x/dcm/PAT-17/1.2.3/4.dcm",
        "PatientBirthDate: 19341106",
        "born 1934-11-06",
        "太郎",
        patients.GREEK_NAME,
        patients.LATIN_1_NAME,
    ],
)
def test_names_ids_and_birth_dates_are_found_above_debug(told: str) -> None:
    for level in ("info", "warn", "error", "critical"):
        line = _TEXT.format(level=level, told=told)
        assert patients.search(f"before\n{line}\nafter") == [line]
        assert patients.search(f'{{"level":"{level}","event":"run_ended","reason":"{told}"}}')
    for level in ("debug", "trace"):
        assert patients.search(_TEXT.format(level=level, told=told)) == []
        assert patients.search(f'{{"level":"{level}","event":"run_ended","reason":"{told}"}}') == []
    assert patients.search(f"<7>debug: adapter.platform [platform] {told}") == []
    assert patients.search(f"<6>info: adapter.platform [platform] {told}")


def test_what_has_no_level_is_searched() -> None:
    """A traceback, or what a program writes beside the log."""
    text = "Traceback (most recent call last):\n  File 'x.py'\nKeyError: 'PAT-9'\n debug: 19341106\n{PAT-1"
    assert patients.search(text) == ["KeyError: 'PAT-9'", " debug: 19341106", "{PAT-1"]


def test_other_words_are_none() -> None:
    """Numbers and words that only look like it."""
    assert patients.search("uid=2.25.7193411069 compat-mode trace=ab19341106c PATIENT dispatch-1") == []


def test_datasets_that_were_asked_for_are_exempt() -> None:
    """`logDimseDatasets` writes them at Information on purpose; the same words elsewhere are found."""
    line = "2026-01-31 12:00:00.000 info: adapter.receiver [receiver-1] {event} elements=PAT-1"
    assert patients.search(line.format(event="dimse_dataset")) == []
    assert patients.search('{"level":"info","event":"dimse_request","elements":"PAT-1"}') == []
    assert patients.search(line.format(event="association_ended"))


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_session_fails_by_what_its_logs_hold(tmp_path: Path, workers: str) -> None:
    """Though its tests all pass, in this process or in workers."""
    line = _TEXT.format(level="info", told="PAT-5")
    test = tmp_path / "test_of_the_check.py"
    test.write_text(f"from tests import patients\ndef test_it():\n    patients.collect('actor-1', {line!r})\n")
    environ = {name: value for name, value in os.environ.items() if name != patients.LOGS}
    plugins = ["-p", "tests.conftest", "-p", "xdist.plugin"]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *plugins, "-q", "-n", workers, "--rootdir", str(tmp_path), str(test)],
        cwd=_REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**environ, "PYTHONPATH": str(_REPOSITORY), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "1 passed" in ended.stdout
    assert "1 lines of 1 logs name a patient above Debug" in ended.stdout
    assert "actor-1, " in ended.stdout
    assert f"test_of_the_check.py::test_it (call): {line}" in ended.stdout
