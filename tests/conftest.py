"""Fixtures that every test may use."""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import patients
from tests.gateway import Gateway

_PEERS = ("storescu", "dcmsend", "echoscu", "storescp", "dcmconv", "dcmcjpeg", "dcmcjpls", "dcmcrle", "curl")


_LOGS = pytest.StashKey[str]()
_NAMING_LINES = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Say at once what is missing, instead of failing test by test; make a place for the logs of all tests."""
    missing = [program for program in _PEERS if shutil.which(program) is None]
    if missing:
        pytest.exit(
            f"not installed: {', '.join(missing)}; run `make test`, or apt-get install dcmtk curl", returncode=2
        )
    os.environ[patients.LOGS] = config.stash[_LOGS] = tempfile.mkdtemp(prefix="dicom-adapter-logs-")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the session when a log names a patient above Debug."""
    found = session.config.stash[_NAMING_LINES] = list(patients.search_collected(Path(session.config.stash[_LOGS])))
    if found and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Show the lines that do."""
    found = config.stash.get(_NAMING_LINES, [])
    told = f"{len(found) or 'no'} lines of {len(os.listdir(config.stash[_LOGS]))} logs name a patient above Debug"
    terminalreporter.section(told, red=bool(found))
    for line in found[:50]:
        terminalreporter.line(line)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Delete the collected logs."""
    os.environ.pop(patients.LOGS, None)
    shutil.rmtree(config.stash.get(_LOGS, ""), ignore_errors=True)


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    """A gateway that runs, without any AE title."""
    with Gateway(tmp_path) as running:
        yield running


@pytest.fixture
def new_gateway(tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    """Makes gateways that are not started yet, each in a directory of its own, and clears them away."""
    made: list[Gateway] = []

    def make(*args: object, **more: object) -> Gateway:
        made.append(Gateway(tmp_path / f"gateway{len(made)}", *args, **more))  # type: ignore[arg-type]
        made[-1].directory.mkdir()
        return made[-1]

    yield make
    for each in made:
        each.clean_up()


@pytest.fixture
def keeping_pipeline(tmp_path: Path) -> list[str]:
    """A pipeline's command that copies its input below a directory of the test: `tmp_path/kept/JOB_ID`."""
    script = tmp_path / "keep.py"
    script.write_text(
        "import os, pathlib, shutil, sys\n"
        f"kept = pathlib.Path({str(tmp_path / 'kept')!r}) / os.environ['JOB_ID']\n"
        "shutil.copytree(sys.argv[1], kept, copy_function=shutil.copyfile)\n"
        "print(sum(1 for path in kept.rglob('*.dcm')), 'files')\n"
    )
    return [sys.executable, str(script), "{input}"]
