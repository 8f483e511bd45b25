"""What a kill, a lost message, or a ledger that fails must not change; and what is tidied up behind."""

import sqlite3
from pathlib import Path

import msgspec
import pytest

from protocol import messages
from protocol.clock import seconds_between
from protocol.killpoints import KILL_DIRECTORY
from protocol.ledger import (
    Group,
    Instance,
    InstanceHistory,
    Job,
    Reclaim,
    SealedShard,
    tuples,
)
from tests.actors.launcher import wait_until
from tests.actors.processor.world import PATIENT, STUDY, Association, World


def test_killed_and_started_again_it_makes_one_job_with_the_same_deadline(world: World) -> None:
    world.add_ae_title("AE", 2.0)
    actor = world.start()
    association = Association(world, "AE")
    first, second = association.store("1.2.3"), association.store("1.2.3")
    world.describe(first)
    world.wait_recorded(first)
    actor.kill()
    world.start()
    world.describe(second)
    (job_id,) = world.announced(1)
    (job,) = world.jobs()
    assert (job["job_id"], job["instances"]) == (job_id, 2)
    seconds = (world.groups()[0]["closed_ns"] - second.stored.wall_ns) / 1e9
    assert 2.0 <= seconds < 6.0


@pytest.mark.parametrize(
    "point",
    [
        "processor.instances-placed",
        "processor.instances-recorded",
        "processor.jobs-planned",
        "processor.group-closed",
        "processor.jobs-announced",
    ],
)
def test_killed_between_any_two_steps_it_makes_one_job(world: World, tmp_path: Path, point: str) -> None:
    world.add_ae_title("AE", 0.3)
    world.launcher.environment[KILL_DIRECTORY] = str(tmp_path)
    (tmp_path / point).write_text("kill")
    actor = world.start()
    instances = [Association(world, "AE").store("1.2.3") for _ in range(3)]
    world.describe(*instances)
    assert actor.wait_ended() < 0
    world.start()
    if point == "processor.instances-placed":
        assert world.states() == {}
        world.describe(*instances)
    (job_id,) = world.announced(1)
    (job,) = world.jobs()
    assert (job["job_id"], job["instances"]) == (job_id, 3)


def test_lost_descriptions_are_asked_for_and_then_not_again(world: World) -> None:
    world.add_ae_title("AE", 0.3)
    instances = [Association(world, "AE").store("1.2.3") for _ in range(5)]
    world.start()
    asked = world.asked(each.identifier for each in instances)
    assert len(asked) == 5
    by_identifier = {each.identifier: each for each in asked}
    for instance in instances:
        assert abs(seconds_between(by_identifier[instance.identifier].stored, instance.stored)) < 1
    world.describe(*(msgspec.structs.replace(each, stored=by_identifier[each.identifier].stored) for each in instances))
    world.announced(1)
    assert len(world.members()[0]) == 5


def test_an_element_that_was_not_read_is_asked_for(world: World) -> None:
    world.add_ae_title("AE", 0.3, groupBy="0010,0020")
    world.start()
    instance = Association(world, "AE").store("1.2.3")
    world.describe(msgspec.structs.replace(instance, attributes={STUDY: "1.2.3"}))
    world.asked([instance.identifier])
    assert world.states() == {}
    world.describe(instance)
    world.announced(1)


def test_jobs_that_nobody_took_over_are_announced_again(world: World) -> None:
    world.add_ae_title("AE", 0.2)
    actor = world.start()
    world.describe(Association(world, "AE").store("1.2.3"))
    first = world.announced(1)
    assert world.announced(1) == first, "by the sweep"
    actor.kill()
    world.start()
    assert world.announced(1) == first, "after a start"
    world.take_over(first)
    world.describe(Association(world, "AE").store("1.2.4"))
    assert first.isdisjoint(world.announced(1))


def test_a_locked_ledger_delays_and_loses_nothing(world: World) -> None:
    world.add_ae_title("AE", 0.3)
    actor = world.start()
    lock = sqlite3.connect(world.ledger.path or "", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    instances = [Association(world, "AE").store("1.2.3") for _ in range(3)]
    world.describe(*instances)
    actor.wait_for_log("ledger_away")
    lock.execute("ROLLBACK")
    lock.close()
    world.announced(1)
    actor.wait_for_log("ledger_answers_again")
    assert world.members() == [{each.identifier for each in instances}]


def test_a_lost_ledger_is_rebuilt_from_the_spool(world: World) -> None:
    world.add_ae_title("AE", 0.3)
    actor = world.start()
    instances = [Association(world, "AE").store("1.2.3") for _ in range(3)]
    world.describe(*instances)
    world.take_over(world.announced(1))
    actor.kill()
    world.lose_ledger()
    world.add_ae_title("AE", 0.3)
    world.start()
    world.asked(each.identifier for each in instances)
    world.describe(*instances)
    world.announced(1)
    assert world.members() == [{each.identifier for each in instances}]


def test_finished_shards_are_sealed_and_reclaimed_groups_move_to_history(world: World) -> None:
    world.add_ae_title("AE", 0.3, groupBy="0010,0020")
    world.start()
    association = Association(world, "AE")
    instances = [association.store("1.2.3") for _ in range(3)]
    given_up = msgspec.structs.replace(association.store("1.2.3"), attributes={PATIENT: ""})
    world.describe(*instances, given_up)
    world.take_over(world.announced(1))
    shard = instances[0].identifier.partition("/")[0]
    world.writer.close()
    world.new_writer()
    wait_until(lambda: tuples(SealedShard.select(SealedShard.shard)) == [(shard,)], "the shard is sealed")

    world.command(messages.DiscardInstances(identifiers=(given_up.identifier,)))
    for instance in (*instances, given_up):
        (world.spool.instances / f"{instance.identifier}.dcm").unlink()
    Reclaim.insert(group_id=world.groups()[0]["group_id"], files=3, bytes=1, reclaimed_ns=77).execute()
    wait_until(lambda: InstanceHistory.select().count() == 4, "rows move to history")
    wait_until(lambda: world.groups()[0]["state"] == "Reclaimed", "the group is reclaimed")
    assert Instance.select().count() == 0
    assert {row.reclaimed_ns for row in InstanceHistory.select() if row.group_id} == {77}

    (world.spool.instances / shard).rmdir()
    wait_until(lambda: SealedShard.select().count() == 0, "a shard that is gone is forgotten")
    world.describe(*instances)  # much too late
    world.describe(Association(world, "AE").store("1.2.4", patient="PAT-8"))
    world.announced(1)
    assert Instance.select().count() == 1


def test_the_same_bytes_after_the_group_was_reclaimed_are_new(world: World) -> None:
    world.add_ae_title("AE", 0.3)
    world.start()
    association = Association(world, "AE")
    first = association.store("1.2.3", "1.2.3.1", data=b"bytes")
    world.describe(first)
    world.announced(1)
    (world.spool.instances / f"{first.identifier}.dcm").unlink()
    again = association.store("1.2.3", "1.2.3.1", data=b"bytes")
    world.describe(again)
    world.announced(1)
    assert world.states()[again.identifier] == "Grouped"
    assert Group.select().count() == 2


def test_it_drains_with_everything_on_record(world: World) -> None:
    world.add_ae_title("AE", 60)
    actor = world.start()
    instances = [Association(world, "AE").store("1.2.3") for _ in range(50)]
    world.describe(*instances)
    world.wait_recorded(instances[0])
    actor.drain(5)
    assert actor.wait_ended() == 0
    assert Job.select().count() == 0
    assert Group.get().state == "Open"
