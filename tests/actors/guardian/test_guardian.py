"""The guardian as a process: what it says on the board, and what it tells, once for each change."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.board import Intake
from protocol.states import InstanceState, JobState
from tests.actors.guardian.house import House
from tests.actors.launcher import Launcher, RunningActor, wait_until

MB = 10**6
LIMITS = ("DicomAdapter.storage.watermarkPercent=100", "DicomAdapter.storage.reserveSpaceGB=0")
QUOTA = (*LIMITS, "DicomAdapter.storage.volumeSize=10M")  # of which 0.1 MB stay free, and 0.2 MB for going on


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Launcher]:
    with Launcher(tmp_path, *LIMITS) as launcher:
        yield launcher


def wait_intake(launcher: Launcher, intake: Intake) -> None:
    wait_until(lambda: launcher.board.intake is intake, f"intake {intake.name}")


def changes(guardian: RunningActor) -> list[str]:
    """The changes of state that it has told of."""
    events = ("intake_paused", "intake_resumed", "ledger_nearly_full", "ledger_has_room")
    return [event for line in guardian.log_text().splitlines() for event in events if f" {event} " in line]


def test_the_quota_counts_what_is_there_what_comes_and_what_goes(launcher: Launcher, tmp_path: Path) -> None:
    launcher.change_settings(*QUOTA)
    house = House(tmp_path)
    identifier = house.store(None, InstanceState.QUARANTINED)
    Path(house.spool.instance_path(identifier)).chmod(0o640)
    Path(house.spool.instance_path(identifier)).write_bytes(bytes(4 * MB))
    row = launcher.board.receiver_row(launcher.board.claim_row() or 0)
    row.add_stored(4 * MB)

    guardian = launcher.start("guardian")
    assert launcher.board.intake is Intake.OPEN
    assert (launcher.board.free_bytes, launcher.board.is_short) == (6 * MB, False)
    row.add_stored(5 * MB)
    wait_until(lambda: launcher.board.free_bytes == MB, "the stored bytes")
    launcher.board.set_platform_bytes(890_000)
    wait_until(lambda: launcher.board.is_short, "that room runs short")
    assert launcher.board.intake is Intake.OPEN
    launcher.board.set_platform_bytes(MB)
    wait_intake(launcher, Intake.PAUSED)
    launcher.board.set_platform_bytes(850_000)  # between the limit and its margin
    wait_until(lambda: launcher.board.free_bytes == 150_000, "the platform's bytes")
    assert launcher.board.intake is Intake.PAUSED
    assert changes(guardian) == ["intake_paused"]

    # A successor goes on from there, and finds the files that there are.
    guardian.kill()
    successor = launcher.start("guardian")
    assert launcher.board.intake is Intake.OPEN
    assert launcher.board.free_bytes == 10 * MB - 4 * MB - 850_000
    successor.wait_for_log("intake_resumed")
    assert changes(successor) == ["intake_resumed"]


def test_what_is_reclaimed_is_free_again(launcher: Launcher, tmp_path: Path) -> None:
    launcher.change_settings(*QUOTA)
    house = House(tmp_path)
    identifiers = [house.store(house.group(JobState.COMPLETED)) for _ in range(3)]
    guardian = launcher.start("guardian")
    guardian.wait_for_log("reclaimed groups=3 files=3 bytes=300")
    assert not any(map(house.holds, identifiers))
    wait_until(lambda: launcher.board.free_bytes == 10 * MB, "the freed bytes")


def test_a_ledger_above_its_quota_warns_and_then_stops_intake(launcher: Launcher, tmp_path: Path) -> None:
    """The file stands in for a ledger that grows: what counts is its size."""
    launcher.change_settings(*LIMITS, "DicomAdapter.database.volumeSize=50M")
    house = House(tmp_path)
    guardian = launcher.start("guardian")
    assert changes(guardian) == []
    wal = tmp_path / "ledger.db-wal"
    with wal.open("ab") as file:
        file.truncate(46 * MB)
        guardian.wait_for_log("ledger_nearly_full")
        assert launcher.board.intake is Intake.OPEN
        file.truncate(51 * MB)
        wait_intake(launcher, Intake.PAUSED)
        guardian.wait_for(lambda: "above its quota" in guardian.lines[-1], "the reason")
        assert not launcher.board.is_short, "giving files up would not help"
        file.truncate(40 * MB)
        wait_intake(launcher, Intake.OPEN)
    guardian.wait_for_log("intake_resumed")
    assert changes(guardian) == ["ledger_nearly_full", "intake_paused", "ledger_has_room", "intake_resumed"]
    house.ledger.close()


def test_a_storage_that_does_not_answer(launcher: Launcher) -> None:
    guardian = launcher.start("guardian")
    away = launcher.spool.root.with_name("away")
    launcher.spool.root.rename(away)
    wait_intake(launcher, Intake.PAUSED)
    away.rename(launcher.spool.root)
    wait_intake(launcher, Intake.OPEN)
    guardian.wait_for_log("intake_resumed")
    assert changes(guardian) == ["intake_paused", "intake_resumed"]
    assert "No such file or directory" in guardian.log_text()


def test_orphans_go_some_seconds_after_the_start(launcher: Launcher, tmp_path: Path) -> None:
    house = House(tmp_path)
    leftover, unknown = house.past(house.group(JobState.COMPLETED)), house.file()
    began = time.monotonic()
    guardian = launcher.start("guardian")
    guardian.wait_for_log('orphans_removed what="reclaimed instances" count=1')
    assert time.monotonic() - began > 1.0  # others have their start first
    assert not house.holds(leftover)
    assert house.holds(unknown)
