"""Fixtures that every test may use."""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import patients, turns
from tests.gateway import Gateway

_PEERS = ("storescu", "dcmsend", "echoscu", "storescp", "dcmconv", "dcmcjpeg", "dcmcjpls", "dcmcrle", "curl")

_SHARED = pytest.StashKey[Path]()
_NAMING_LINES = pytest.StashKey[list[str]]()


def _is_worker(config: pytest.Config) -> bool:
    """Whether this is a process of pytest-xdist, which runs tests for a session of another one."""
    return hasattr(config, "workerinput")


def pytest_configure(config: pytest.Config) -> None:
    """Say at once what is missing, instead of failing test by test; make a place for what all tests share."""
    if _is_worker(config):
        config.stash[_SHARED] = Path(os.environ[patients.LOGS]).parent
        return
    missing = [program for program in _PEERS if shutil.which(program) is None]
    if missing:
        pytest.exit(
            f"not installed: {', '.join(missing)}; run `make test`, or apt-get install dcmtk curl", returncode=2
        )
    config.stash[_SHARED] = shared = Path(tempfile.mkdtemp(prefix="dicom-adapter-logs-"))
    (shared / "logs").mkdir()
    os.environ[patients.LOGS] = str(shared / "logs")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In workers: one order in all of them, the files with the long tests first."""
    if not _is_worker(config):
        return
    places: dict[str, int] = {}
    for item in items:
        places.setdefault(item.nodeid.partition("[")[0], len(places))

    def order(item: pytest.Item) -> tuple[bool, int, str]:
        is_short = item.nodeid.startswith(("tests/actors/", "tests/protocol/"))
        # A set of parameters has another order in each process.
        return is_short, places[item.nodeid.partition("[")[0]], item.nodeid

    items.sort(key=order)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Run a test beside those of other workers, or alone when it is marked so."""
    with turns.turn(item.config.stash[_SHARED], alone=item.get_closest_marker("alone") is not None):
        return (yield)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the session when a log names a patient above Debug."""
    if _is_worker(session.config):
        return
    found = session.config.stash[_NAMING_LINES] = list(patients.search_collected(_logs(session.config)))
    if found and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Show the lines that do."""
    found = config.stash.get(_NAMING_LINES, [])
    told = f"{len(found) or 'no'} lines of {len(os.listdir(_logs(config)))} logs name a patient above Debug"
    terminalreporter.section(told, red=bool(found))
    for line in found[:50]:
        terminalreporter.line(line)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Delete what the tests shared."""
    if not _is_worker(config) and _SHARED in config.stash:
        os.environ.pop(patients.LOGS, None)
        shutil.rmtree(config.stash[_SHARED], ignore_errors=True)


def _logs(config: pytest.Config) -> Path:
    return config.stash[_SHARED] / "logs"


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
