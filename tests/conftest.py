"""Fixtures that every test may use."""

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.gateway import Gateway

_PEERS = ("storescu", "dcmsend", "echoscu", "storescp", "dcmconv", "dcmcjpeg", "dcmcjpls", "dcmcrle")


def pytest_configure() -> None:
    """Say at once what is missing, instead of failing test by test."""
    missing = [program for program in _PEERS if shutil.which(program) is None]
    if missing:
        pytest.exit(f"not installed: {', '.join(missing)}; run `make test`, or apt-get install dcmtk", returncode=2)


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
