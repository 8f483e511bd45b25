"""A receiver process for each module of tests that wants one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.actors.launcher import Launcher, RunningActor
from tests.actors.receiver.raw import Peer, all_files, allow

# Deadlines that a test can wait for, and that a loaded machine does not miss by itself.
SHORT_LIMITS = (
    "DicomAdapter.dicom.scp.limits.firstBytesSeconds=1.5",
    "DicomAdapter.dicom.scp.limits.pduSeconds=1.5",
    "DicomAdapter.dicom.scp.limits.idleSeconds=30",
    "DicomAdapter.dicom.scp.limits.writeSeconds=1.5",
    "DicomAdapter.dicom.scp.maximumNumberOfAssociations=10",
)


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    """One launcher with short deadlines; the AE title is CT, the source TESTER."""
    with Launcher(tmp_path_factory.mktemp("receiver"), *SHORT_LIMITS) as running:
        allow(running.spool, "CT")
        yield running


@pytest.fixture(scope="module")
def one_receiver(launcher: Launcher) -> RunningActor:
    """Its only receiver."""
    return launcher.start("receiver-1")


@pytest.fixture
def receiver(launcher: Launcher, one_receiver: RunningActor) -> Iterator[RunningActor]:
    """The receiver, which must be whole and have nothing in transit, no slot taken, after each test."""
    allow(launcher.spool, "CT")
    yield one_receiver
    allow(launcher.spool, "CT")
    assert one_receiver.process.poll() is None, one_receiver.log_text()
    with Peer(launcher.port) as peer:
        peer.associate()
        assert peer.store("1.2.3.4.5").status == 0
        peer.release()
    assert not [path for path in all_files(launcher.spool) if path.suffix == ".part"]


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Launcher]:
    """A launcher for one test."""
    with Launcher(tmp_path) as running:
        allow(running.spool, "CT")
        yield running
