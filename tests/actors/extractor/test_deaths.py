"""What ends every extractor that reads it is given up; what does not is described, whoever died meanwhile."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.extractor.deaths import MOST_DEATHS, Deaths
from protocol.messages import DescribeInstances, InstancesStored
from tests.actors.extractor.encoding import dataset
from tests.actors.extractor.test_extractor import SHARD, World
from tests.actors.launcher import Launcher, wait_until


def test_a_note_outlives_its_writer(tmp_path: Path) -> None:
    first = Deaths(str(tmp_path), "extractor-1")
    first.begin("shard/a")
    first.end()
    first.begin("shard/b-000001")
    del first  # as a kill does, without a word
    other = Deaths(str(tmp_path), "extractor-2")
    other.refresh()
    assert (other.of("shard/a"), other.of("shard/b-000001")) == (0, 0)
    second = Deaths(str(tmp_path), "extractor-1")
    for each in (second, other):
        each.refresh()
        assert (each.of("shard/a"), each.of("shard/b-000001")) == (0, 1)


def test_an_end_without_a_note_is_nobody_s_fault(tmp_path: Path) -> None:
    Deaths(str(tmp_path), "extractor-1").begin("shard/a")
    for expected in (1, 1):
        found = Deaths(str(tmp_path), "extractor-1")
        found.refresh()
        assert found.of("shard/a") == expected


def test_a_longer_name_does_not_show_through_a_shorter_one(tmp_path: Path) -> None:
    note = Deaths(str(tmp_path), "extractor-1")
    for identifier in ("s/" + "long" * 20, "s/short"):
        note.begin(identifier)
    found = Deaths(str(tmp_path), "extractor-1")
    found.refresh()
    assert (found.of("s/short"), len(found._counts)) == (1, 1)


def test_what_was_given_up_may_come_again(tmp_path: Path) -> None:
    for _ in range(MOST_DEATHS):
        Deaths(str(tmp_path), "extractor-1").begin("shard/a")
    found = Deaths(str(tmp_path), "extractor-1")
    found.refresh()
    assert found.of("shard/a") == MOST_DEATHS
    found.forget("shard/a")
    found.refresh()
    assert found.of("shard/a") == 0


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with Launcher(tmp_path, "DicomAdapter.dicom.scp.receivers=1") as launcher:
        world = World(launcher)
        yield world
        world.bus.close()


def test_a_file_that_holds_its_reader_is_given_up(world: World) -> None:
    """Reading a FIFO that nobody writes never ends, so that each of these extractors has to be killed."""
    good = world.store("a-000001", dataset())
    poison = world.claim("b-000001")
    path = world.launcher.spool.instance_path(poison.identifier)
    os.mkfifo(path)
    note = world.launcher.runtime / "extractor-1.reading"
    for deaths in range(MOST_DEATHS):
        actor = world.launcher.start("extractor-1")
        world.send(InstancesStored(instances=(poison, good)))
        wait_until(
            lambda: poison.identifier.encode() in note.read_bytes() and note.read_bytes()[0], "a reader that hangs"
        )
        # From the second on, what is suspected waits for what is not.
        assert [each.identifier for each, _ in world.described(deaths)] == [good.identifier] * deaths
        actor.kill()
    world.forget()

    actor = world.launcher.start("extractor-1")
    world.send(InstancesStored(instances=(poison, good)))
    described = {each.identifier: each.problem for each, _ in world.described(2)}
    assert described == {good.identifier: "", poison.identifier: "3 extractors ended while they read it"}
    assert f"{SHARD}/b-000001" in actor.wait_for_log("instance_given_up")

    # A person releases it after whatever was wrong was mended.
    os.unlink(path)
    world.forget()
    world.store("b-000001", dataset())
    world.send(DescribeInstances(instances=(poison,), lenient=True))
    [(released, lenient)] = world.described(1)
    assert lenient
    assert (released.identifier, released.problem) == (poison.identifier, "")
