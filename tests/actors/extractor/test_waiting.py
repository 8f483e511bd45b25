"""When the extractor begins: it waits for a pause of the receivers, and for nobody who waits for it."""

import time
from pathlib import Path

import pytest

from actors.extractor import extractor as module
from actors.extractor import patience
from actors.extractor.extractor import Extractor
from protocol import clock
from protocol.messages import (
    DescribeInstances,
    InstancesStored,
    StoredInstance,
)
from tests.actors.extractor.encoding import dataset, part10
from tests.actors.extractor.sent import Sent
from tests.actors.launcher import Launcher

SHARD = "20240101T000000-receiver_00000000-0001"


class Receiving:
    """An extractor beside a receiver that is busy; its clock goes on when it looks, and when it is set."""

    def __init__(self, extractor: Extractor, launcher: Launcher, monkeypatch: pytest.MonkeyPatch) -> None:
        self.extractor = extractor
        self.clock = time.monotonic()
        self.sent = Sent()
        monkeypatch.setattr(extractor, "_descriptions", self.sent)
        monkeypatch.setattr(patience.time, "monotonic", lambda: self.clock)
        self._row = extractor.board.receiver_row(extractor.board.claim_row() or 0)
        self._path = Path(launcher.spool.instances / SHARD)
        self._path.mkdir()

    def store(self, name: str) -> StoredInstance:
        """An instance on disk."""
        body = part10(dataset())
        (self._path / f"{name}.dcm").write_bytes(body)
        self._row.add_stored(len(body))
        return StoredInstance(f"{SHARD}/{name}", clock.now())

    def announce(self, name: str) -> None:
        """An instance on disk, and a receiver has said so."""
        self.extractor.handle_instances_stored(InstancesStored(instances=(self.store(name),)))

    def looks(self, *, busy: bool) -> list[int]:
        """The extractor looks whether receivers are busy; how many instances its messages have described so far."""
        self._row.add_stored(1000 if busy else 0)
        self.clock += patience.LOOK_SECONDS
        for _ in range(2):
            self.extractor.turn(0)
        return [len(message.instances) for message in self.sent.messages]


@pytest.fixture
def receiving(extractor: Extractor, launcher: Launcher, monkeypatch: pytest.MonkeyPatch) -> Receiving:
    return Receiving(extractor, launcher, monkeypatch)


def test_it_begins_when_the_receivers_pause(receiving: Receiving) -> None:
    receiving.announce("a")
    assert receiving.looks(busy=True) == []
    receiving.announce("b")
    assert receiving.looks(busy=True) == []
    assert receiving.looks(busy=False) == [2]


def test_under_load_without_end_it_begins_when_the_first_has_waited_long_enough(receiving: Receiving) -> None:
    for number in range(3):
        receiving.announce(f"a-{number}")
        assert receiving.looks(busy=True) == []
        receiving.clock += patience.LONGEST_SECONDS / 3
    assert receiving.looks(busy=True) == [3]
    receiving.announce("b")
    receiving.clock += patience.LONGEST_SECONDS / 2
    assert receiving.looks(busy=True) == [3]
    receiving.clock += patience.LONGEST_SECONDS / 2
    assert receiving.looks(busy=True) == [3, 1]


def test_what_comes_while_it_works_is_not_put_off(receiving: Receiving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", 1)
    for name in ("a", "b"):
        receiving.announce(name)
    receiving.clock += patience.LONGEST_SECONDS
    receiving.looks(busy=True)
    receiving.announce("c")
    while receiving.extractor.busy_with():
        receiving.looks(busy=True)
    assert len(receiving.sent.messages) == 3


def test_what_a_group_waits_for_is_not_put_off(receiving: Receiving) -> None:
    receiving.extractor.board.set_awaited(clock.now().boot_ns)
    receiving.announce("a")
    assert receiving.looks(busy=True) == [], "it was stored later"
    receiving.extractor.board.set_awaited(clock.now().boot_ns)
    assert receiving.looks(busy=True) == [1]


def test_what_the_processor_asks_for_is_not_put_off(receiving: Receiving) -> None:
    receiving.announce("a")
    receiving.extractor.handle_describe_instances(DescribeInstances(instances=(receiving.store("b"),)))
    assert receiving.looks(busy=True) == [2]


def test_a_drain_puts_nothing_off(receiving: Receiving) -> None:
    receiving.announce("a")
    receiving.extractor.begin_drain(10.0)
    receiving.announce("b")
    assert receiving.looks(busy=True) == [2]
    assert receiving.extractor.finished
