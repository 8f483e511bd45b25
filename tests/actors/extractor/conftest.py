"""An extractor in this process, for what real files cannot bring about."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.extractor.extractor import Extractor
from protocol.birth import Birth
from tests.actors.launcher import Launcher


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Launcher]:
    with Launcher(tmp_path, "DicomAdapter.dicom.scp.receivers=1") as launcher:
        yield launcher


@pytest.fixture
def extractor(launcher: Launcher) -> Iterator[Extractor]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    birth = Birth(
        name="extractor-1",
        runtime=str(launcher.runtime),
        lifeline=theirs.detach(),
        alive=-1,
        board=launcher.board.fd,
    )
    extractor = Extractor(birth, launcher.settings)
    extractor.start()
    yield extractor
    extractor.stop()
    extractor.bus.close()
    ours.close()
