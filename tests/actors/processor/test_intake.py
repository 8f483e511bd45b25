"""What is kept between a description's arrival and its row."""

from collections.abc import Callable, Sequence
from pathlib import Path

import peewee as pw
import pytest

from actors.processor.comparison import Comparer
from actors.processor.intake import BATCH, MAXIMUM_PENDING, Intake
from actors.processor.plugin import Answer, OwnPlugin
from actors.processor.recording import Description, Outcome
from actors.processor.shards import OpenShards
from protocol.clock import Moment
from protocol.logs import EventLogger
from protocol.messages import DescribedInstance
from protocol.spool import Spool

LOG = EventLogger("adapter.processor")


class Recorder:
    """Records everything, unless it is told to fail."""

    def __init__(self) -> None:
        self.refused: set[str] = set()
        self.away = False
        self.recorded: list[DescribedInstance] = []
        self.absent: Absent | None = None

    def record(self, batch: Sequence[Description], now: Moment) -> Outcome:
        if self.away:
            raise pw.OperationalError("database is locked")
        if any(each.instance.identifier in self.refused and not each.instance.problem for each in batch):
            raise pw.DataError("value too long")
        if self.absent is not None:
            waits = [each for each in batch if each.answer is None]
            batch = [each for each in batch if each.answer is not None]
        else:
            waits = []
        self.recorded += [each.instance for each in batch]
        return Outcome(
            recorded=[each.instance.identifier for each in batch],
            unkeyed=[(each, self.absent) for each in waits if self.absent is not None],
        )


class Absent(OwnPlugin):
    """A job processor that answers when the test says so."""

    full = False

    def __init__(self) -> None:
        self.asked: list[Callable[[Answer | None], None]] = []

    def ask_key(self, instance: DescribedInstance, done: Callable[[Answer | None], None]) -> None:
        self.asked.append(done)


class Collected:
    """An intake with a recorder of the test's own."""

    def __init__(self, directory: Path) -> None:
        spool = Spool(directory)
        self.recorder = Recorder()
        self.shards = OpenShards(spool, lambda identifiers: ())
        self.comparer = Comparer(spool, lambda callback: None, LOG)
        self.intake = Intake(self.recorder, self.shards, self.comparer, LOG)  # type: ignore[arg-type]


@pytest.fixture
def collected(tmp_path: Path) -> Collected:
    return Collected(tmp_path)


def described(*numbers: int) -> list[DescribedInstance]:
    return [DescribedInstance(identifier=f"shard/a-{number:06d}", stored=Moment(0)) for number in numbers]


def test_what_is_in_hand_or_on_record_is_not_taken_twice(collected: Collected) -> None:
    for _ in range(3):
        collected.intake.add(described(1, 2), lenient=False)
    assert collected.intake.has("shard/a-000001")
    collected.intake.record()
    collected.intake.add(described(1, 2), lenient=False)
    assert collected.intake.record() is None
    assert len(collected.recorder.recorded) == 2
    assert not collected.intake.has("shard/a-000001")


def test_a_full_batch_does_not_wait(collected: Collected) -> None:
    assert collected.intake.next_at() is None
    collected.intake.add(described(0), lenient=False)
    assert collected.intake.next_at()
    collected.intake.add(described(*range(1, BATCH)), lenient=False)
    assert collected.intake.next_at() == 0.0


def test_a_batch_is_kept_in_its_order_while_the_ledger_is_away(collected: Collected) -> None:
    collected.recorder.away = True
    collected.intake.add(described(1, 2, 3), lenient=False)
    with pytest.raises(pw.OperationalError):
        collected.intake.record()
    collected.shards.put_on_record(["shard/a-000002"])  # it was committed after all
    collected.intake.forget_recorded()
    collected.recorder.away = False
    collected.intake.record()
    assert [each.identifier for each in collected.recorder.recorded] == ["shard/a-000001", "shard/a-000003"]


def test_beyond_its_bound_it_leaves_all_to_the_sweep(collected: Collected) -> None:
    collected.intake.add(described(*range(MAXIMUM_PENDING + 1)), lenient=False)
    assert collected.intake.record() is None
    assert not collected.intake.has("shard/a-000001")


def test_what_the_ledger_refuses_is_quarantined_alone(collected: Collected) -> None:
    collected.recorder.refused = {"shard/a-000002"}
    collected.intake.add(described(1, 2, 3), lenient=False)
    outcome = collected.intake.record()
    assert outcome is not None
    assert len(outcome.recorded) == 3
    assert [bool(each.problem) for each in collected.recorder.recorded] == [False, True, False]


def test_what_waits_for_its_key_is_in_hand_and_comes_again(collected: Collected) -> None:
    absent = collected.recorder.absent = Absent()
    collected.intake.add(described(1, 2), lenient=False)
    collected.intake.record()
    assert collected.intake.record() is None
    assert collected.intake.has("shard/a-000001")
    for done in absent.asked:
        done(Answer(absent, "key"))
    outcome = collected.intake.record()
    assert outcome is not None
    assert outcome.recorded == ["shard/a-000001", "shard/a-000002"]
    assert not collected.intake.has("shard/a-000001")


def test_what_finds_no_room_to_wait_is_left_to_the_sweep(collected: Collected) -> None:
    absent = collected.recorder.absent = Absent()
    absent.full = True
    collected.intake.add(described(1), lenient=False)
    collected.intake.record()
    assert not collected.intake.has("shard/a-000001")
    assert absent.asked == []
