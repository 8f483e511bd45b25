"""What sends to the receiver of a test: DCMTK's senders, under the AE title that it knows."""

from pathlib import Path
from typing import Any

from tests.actors.launcher import Launcher
from tests.peers import Sent, storescu
from tests.peers import echoscu as run_echoscu

CALLING = "TESTER"


def send(launcher: Launcher, *files: Path, called: str = "CT", **more: Any) -> Sent:
    return storescu(launcher.port, *files, called=called, calling=CALLING, **more)


def echo(launcher: Launcher, called: str = "CT", calling: str = CALLING) -> Sent:
    return run_echoscu(launcher.port, called=called, calling=calling)
