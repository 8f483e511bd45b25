"""The durable write; `test_syncer.py` has the syncs that it waits for."""

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from actors.actor import Actor
from actors.receiver.pace import Pace
from actors.receiver.store import Complete, Store, start_write_back
from actors.receiver.syncer import Done
from protocol.spool import ShardWriter, Spool
from tests.actors.receiver.loop import Loop


class Disk:
    """A syncer whose syncs end when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Done]] = []

    def sync(self, fd: int, done: Done, *, data_only: bool) -> None:
        kind = "data" if data_only else "directory"
        self.asked.append((f"{kind} {os.path.basename(os.readlink(f'/proc/self/fd/{fd}'))}", done))

    def close(self, seconds: float) -> None:
        pass

    def end(self, error: OSError | None = None) -> str:
        """End the oldest; tells which it was."""
        what, done = self.asked.pop(0)
        done(error)
        return what


class Object(Complete):
    __slots__ = ("answered",)

    def answer(self) -> None:
        self.answered = True

    @property
    def fate(self) -> str:
        if not hasattr(self, "answered"):
            return "pending"
        return "failed" if self.error else "stored" if self.stored else "neither"


class Stage:
    """A store on a disk that the test rules.

    Args:
        directory: for its spool.
        is_slow: whether all goes beside the loop.
    """

    def __init__(self, directory: Path, *, is_slow: bool) -> None:
        self.spool = Spool(directory / "spool")
        self.spool.create()
        self.writer = ShardWriter(self.spool, "receiver")
        self.disk = Disk()
        self.loop = Loop()
        self.pace = Pace(lambda _: None, is_usual=is_slow)
        self.store = Store(self.writer, self.disk, cast(Actor, self.loop), self.pace)

    def object(self, number: int, size: int = 4) -> Object:
        part = self.writer.open_part("abc", number)
        os.write(part.fd, bytes(size))
        return Object(part, size)

    def commit_one_without_a_name(self) -> tuple[Object, Object]:
        """Two objects, of which the first cannot be renamed."""
        one, two = self.object(1), self.object(2)
        assert one.part
        os.unlink(one.part.path)
        self.store.commit(one, sync=True)
        self.store.commit(two, sync=True)
        return one, two

    def shard(self, one: Object) -> str:
        assert one.part
        return one.part.shard

    def open_shards(self) -> list[str]:
        """Shards of which this process has a descriptor."""
        found = []
        for fd in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):  # the listing's own
                target = Path(os.readlink(f"/proc/self/fd/{fd}"))
                if target.parent == self.spool.instances:
                    found.append(target.name)
        return found

    def names(self) -> list[str]:
        return sorted(path.name for path in self.spool.instances.glob("*/*"))


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path, is_slow=True)


class TestStore:
    """Syncs beside each other."""

    def test_an_answer_comes_after_both_syncs(self, stage: Stage) -> None:
        one = stage.object(1)
        stage.store.commit(one, sync=True)
        assert one.fate == "pending"
        assert stage.names() == ["abc-000001.part"]
        assert stage.disk.end() == "data abc-000001.part"
        assert one.fate == "pending"
        assert stage.names() == ["abc-000001.dcm"]
        assert stage.disk.end().startswith("directory ")
        assert one.fate == "stored"
        assert stage.disk.asked == []

    def test_one_sync_of_the_directory_for_all_that_wait(self, stage: Stage) -> None:
        objects = [stage.object(number) for number in range(1, 5)]
        for each in objects:
            stage.store.commit(each, sync=True)
        for _ in objects:
            assert stage.disk.end().startswith("data")
        assert stage.disk.end().startswith("directory")
        # The first was renamed before that sync began, the others perhaps after it: they wait for the next.
        assert [each.fate for each in objects] == ["stored", "pending", "pending", "pending"]
        assert stage.disk.end().startswith("directory")
        assert {each.fate for each in objects} == {"stored"}
        assert stage.disk.asked == []

    def test_a_failed_sync_is_a_failed_store(self, stage: Stage) -> None:
        one, two = stage.object(1), stage.object(2)
        stage.store.commit(one, sync=True)
        stage.store.commit(two, sync=True)
        stage.disk.end(OSError(errno.EIO, "input/output error"))
        assert one.fate == "failed"
        stage.disk.end()
        stage.disk.end()
        assert two.fate == "stored"
        assert stage.names() == ["abc-000001.part", "abc-000002.dcm"]

    def test_a_failed_sync_of_the_directory_fails_all_that_it_was_for(self, stage: Stage) -> None:
        one = stage.object(1)
        stage.store.commit(one, sync=True)
        stage.disk.end()
        stage.disk.end(OSError(errno.EIO, "input/output error"))
        assert one.fate == "failed"

    def test_only_the_shard_written_to_is_kept_open(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its directory is synced with every few objects; opened each time it would cost as much as the sync's call."""
        for number in range(1, 7):
            if number == 4:
                monkeypatch.setattr("protocol.spool.SHARD_FILES", 3)
            one = stage.object(number)
            stage.store.commit(one, sync=True)
            stage.disk.end()
            assert stage.disk.asked == [(f"directory {stage.shard(one)}", stage.disk.asked[0][1])]
            stage.disk.end()
            assert one.fate == "stored"
            assert stage.open_shards() == [stage.shard(one)]
        assert len(list(stage.spool.instances.iterdir())) == 2

    def test_a_shard_stays_open_while_it_is_synced(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("protocol.spool.SHARD_FILES", 1)
        first, second = stage.object(1), stage.object(2)
        stage.store.commit(first, sync=True)
        stage.store.commit(second, sync=True)
        stage.disk.end()
        stage.disk.end()
        assert sorted(stage.open_shards()) == sorted([stage.shard(first), stage.shard(second)])
        stage.disk.end()
        assert stage.open_shards() == [stage.shard(second)]  # nothing is written to the first any more
        stage.disk.end()
        assert stage.open_shards() == [stage.shard(second)]
        assert {first.fate, second.fate} == {"stored"}

    def test_what_cannot_be_renamed_fails_alone(self, stage: Stage) -> None:
        one, two = stage.commit_one_without_a_name()
        stage.disk.end()
        assert one.fate == "failed"
        stage.disk.end()
        stage.disk.end()
        assert two.fate == "stored"

    def test_without_sync_it_is_answered_at_once(self, stage: Stage) -> None:
        one = stage.object(1)
        stage.store.commit(one, sync=False)
        assert one.fate == "stored"
        assert stage.names() == ["abc-000001.dcm"]
        assert stage.disk.asked == []


@pytest.fixture
def quick(tmp_path: Path) -> Stage:
    return Stage(tmp_path, is_slow=False)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The syncs that the process made itself: of a `.part`, of a shard."""
    made: list[str] = []

    def noted(call: Callable[[int], None]) -> Callable[[int], None]:
        def note(fd: int) -> None:
            name = Path(os.readlink(f"/proc/self/fd/{fd}")).name
            if name != "instances":  # when a shard was made
                made.append(name)
            call(fd)

        return note

    monkeypatch.setattr("actors.receiver.store.os.fdatasync", noted(os.fdatasync))
    monkeypatch.setattr("actors.receiver.store.os.fsync", noted(os.fsync))
    return made


def break_syncs(monkeypatch: pytest.MonkeyPatch, call: str, broken: str) -> None:
    """Have the syncs of what has this name fail."""
    real = getattr(os, call)

    def sync(fd: int) -> None:
        if Path(os.readlink(f"/proc/self/fd/{fd}")).name == broken:
            raise OSError(errno.EIO, "input/output error")
        real(fd)

    monkeypatch.setattr(f"actors.receiver.store.os.{call}", sync)


class TestTurns:
    """Small objects on a quick disk, which are synced at the end of the turn that completed them."""

    def test_a_turns_objects_share_the_sync_of_their_directory(self, quick: Stage, calls: list[str]) -> None:
        objects = [quick.object(number) for number in range(1, 5)]
        for each in objects:
            quick.store.commit(each, sync=True)
        assert calls == []
        assert {each.fate for each in objects} == {"pending"}
        quick.loop.turn(0)
        parts = [f"abc-{number:06d}.part" for number in range(1, 5)]
        assert calls == [*parts, quick.shard(objects[0])]
        assert {each.fate for each in objects} == {"stored"}
        assert quick.names() == [part.replace(".part", ".dcm") for part in parts]
        assert quick.disk.asked == []

    def test_a_failed_sync_is_a_failed_store(self, quick: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        one, two = quick.object(1), quick.object(2)
        break_syncs(monkeypatch, "fdatasync", "abc-000001.part")
        quick.store.commit(one, sync=True)
        quick.store.commit(two, sync=True)
        quick.loop.turn(0)
        assert (one.fate, two.fate) == ("failed", "stored")
        assert quick.names() == ["abc-000001.part", "abc-000002.dcm"]

    def test_a_failed_sync_of_a_directory_fails_what_it_was_for(
        self, quick: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("protocol.spool.SHARD_FILES", 2)
        objects = [quick.object(number) for number in range(1, 5)]
        break_syncs(monkeypatch, "fsync", quick.shard(objects[0]))
        for each in objects:
            quick.store.commit(each, sync=True)
        quick.loop.turn(0)
        assert [each.fate for each in objects] == ["failed", "failed", "stored", "stored"]

    def test_each_shard_of_a_turn_is_synced(
        self, quick: Stage, calls: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("protocol.spool.SHARD_FILES", 1)
        one, two = quick.object(1), quick.object(2)
        quick.store.commit(two, sync=True)
        quick.store.commit(one, sync=True)
        quick.loop.turn(0)
        assert sorted(calls[2:]) == sorted([quick.shard(one), quick.shard(two)])
        assert (one.fate, two.fate) == ("stored", "stored")
        assert len(quick.open_shards()) == 1

    def test_what_cannot_be_renamed_fails_alone(self, quick: Stage) -> None:
        one, two = quick.commit_one_without_a_name()
        quick.loop.turn(0)
        assert (one.fate, two.fate) == ("failed", "stored")

    def test_a_shard_that_cannot_be_opened_is_a_failed_store(
        self, quick: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(_: str) -> int:
            raise OSError(errno.EMFILE, "too many open files")

        monkeypatch.setattr(quick.writer, "open_directory", refuse)
        one = quick.object(1)
        quick.store.commit(one, sync=True)
        quick.loop.turn(0)
        assert one.fate == "failed"

    def test_other_work_has_its_turn_between_many(self, quick: Stage, calls: list[str]) -> None:
        objects = [quick.object(number) for number in range(1, 101)]
        for each in objects:
            quick.store.commit(each, sync=True)
        done = []
        while not quick.loop.posted.empty():
            quick.loop.posted.get()()
            done.append(sum(each.fate == "stored" for each in objects))
        assert done == [32, 64, 96, 100]
        assert len(calls) == 104

    def test_what_an_answer_brings_is_not_forgotten(self, quick: Stage) -> None:
        """A peer's next object may be complete before the answers of a turn are all sent."""

        class Chatty(Object):
            __slots__ = ()

            def answer(self) -> None:
                super().answer()
                quick.store.commit(other, sync=True)

        one, other = quick.object(1), quick.object(2)
        chatty = Chatty(one.part, one.size)
        quick.store.commit(chatty, sync=True)
        quick.loop.turn(0)
        quick.loop.turn(0)
        assert (chatty.fate, other.fate) == ("stored", "stored")

    def test_large_objects_go_beside_the_loop(self, quick: Stage, calls: list[str]) -> None:
        small, large = quick.object(1, 65_535), quick.object(2, 65_536)
        quick.store.commit(large, sync=True)
        quick.store.commit(small, sync=True)
        quick.loop.turn(0)
        assert (small.fate, large.fate) == ("stored", "pending")
        assert len(calls) == 2
        quick.disk.end()
        quick.disk.end()
        assert large.fate == "stored"

    def test_a_slow_disk_is_not_waited_for(self, quick: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        now = [1000.0]

        def slow(_: int) -> None:
            now[0] += 0.02

        monkeypatch.setattr("actors.receiver.store.time.monotonic", lambda: now[0])
        monkeypatch.setattr("actors.receiver.store.os.fdatasync", slow)
        number = 0
        while not quick.disk.asked:
            assert number < 20
            number += 1
            quick.store.commit(quick.object(number), sync=True)
            quick.loop.turn(0)
        assert number > 2, "one hiccup is not enough"

    def test_closing_leaves_nothing_unanswered(self, quick: Stage) -> None:
        objects = [quick.object(number) for number in range(1, 41)]
        for each in objects:
            quick.store.commit(each, sync=True)
        quick.store.close(1.0)
        assert {each.fate for each in objects} == {"stored"}
        quick.loop.turn(0)  # nothing is left to be done


def test_write_back_is_a_hint(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as file:
        file.write(bytes(10000))
        file.flush()
        start_write_back(file.fileno(), 0, 10000)
    start_write_back(-1, 0, 1)
