"""The processor as a process: real files, a real ledger, and a test that plays its neighbours."""

import os
import re
import select
import time
from pathlib import Path

import msgspec
import pytest

from protocol import messages
from protocol.errors import RefusedError
from protocol.ledger import (
    AeTitle,
    Instance,
    tuples,
)
from tests.actors.launcher import PATIENCE_SECONDS
from tests.actors.processor.world import PATIENT, Association, World, let_pass


def test_two_ae_titles_make_four_and_four_jobs(world: World) -> None:
    """By study with one pipeline, and by patient with two: two patients with two studies each, sent to both."""
    world.add_ae_title("Clara1", 0.5, pipeline_one="id-1")
    two = {"pipeline_two": "id-2", "pipeline_three": "id-3"}
    world.add_ae_title("Clara2", 0.7, groupBy="0010,0020", priority="Higher", **two)
    world.start()
    for ae_title in ("Clara1", "Clara2"):
        for patient in (1, 2):
            for study in ("1", "2"):
                association = Association(world, ae_title)
                instances = [association.store(f"1.2.{patient}.{study}", patient=f"PAT-{patient}") for _ in range(3)]
                world.describe(*instances)
    announced = world.announced(8)
    jobs = world.jobs()
    assert {job["job_id"] for job in jobs} == announced
    first = [job for job in jobs if job["ae_title"] == "Clara1"]
    second = [job for job in jobs if job["ae_title"] == "Clara2"]
    assert [(job["pipeline_id"], job["instances"], job["priority"]) for job in first] == [("id-1", 3, "normal")] * 4
    assert sorted((job["pipeline_id"], job["instances"], job["priority"]) for job in second) == [
        ("id-2", 6, "higher"),
        ("id-2", 6, "higher"),
        ("id-3", 6, "higher"),
        ("id-3", 6, "higher"),
    ]
    assert {job["source"] for job in jobs} == {"Clara1 (AE Title Job Processor)", "Clara2 (AE Title Job Processor)"}
    assert all(re.fullmatch(r"clara[12]-(one|two|three)-\d{14}", job["name"]) for job in jobs)
    assert {group["state"] for group in world.groups()} == {"Closed"}


def test_one_study_over_five_associations_is_one_job(world: World) -> None:
    world.add_ae_title("AE", 0.5)
    world.start()
    stored = []
    for _ in range(5):
        instance = Association(world, "AE").store("1.2.3")
        stored.append(instance.identifier)
        world.describe(instance)
    world.announced(1)
    assert world.members() == [set(stored)]


def test_a_backlog_never_splits_a_study(world: World) -> None:
    """Descriptions that come long after the timeout still belong to the one job; other AE titles do not wait."""
    world.add_ae_title("SLOW", 0.3)
    world.add_ae_title("QUICK", 0.3)
    world.start()
    association = Association(world, "SLOW")
    instances = [association.store("1.2.3") for _ in range(6)]
    world.describe(*instances[:3])
    world.describe(Association(world, "QUICK").store("1.2.4"))
    (quick,) = world.announced(1)
    world.take_over([quick])
    world.asked(each.identifier for each in instances[3:])  # far past the timeout
    assert [job["job_id"] for job in world.jobs()] == [quick]
    world.describe(*instances[3:])
    (slow,) = world.announced(1)
    assert {each.identifier for each in instances} in world.members()
    assert {job["job_id"]: job["instances"] for job in world.jobs()}[slow] == 6


def test_an_ae_title_that_never_rests_does_not_hold_its_groups_open(world: World) -> None:
    """What is stored after a group's deadline is not waited for."""
    world.add_ae_title("AE", 0.3)
    world.start()
    instance, before = Association(world, "AE").store("1.2.3"), Association(world, "AE").store("1.2.4")
    world.describe(instance)
    world.wait_recorded(instance)
    let_pass(0.8)
    Association(world, "AE").store("1.2.5")
    assert world.jobs() == [], "an instance that was stored before the deadline is not on record"
    world.describe(before)
    world.announced(1)
    assert [group["key_value"] for group in world.groups() if group["state"] == "Closed"] == ["1.2.3"]


def test_an_object_in_transit_holds_its_associations_group(world: World) -> None:
    world.add_ae_title("AE", 0.3)
    actor = world.start()
    association, other = Association(world, "AE"), Association(world, "AE")
    first, elsewhere = association.store("1.2.3"), other.store("1.2.4")
    part = association.begin()
    world.describe(first, elsewhere)
    world.announced(1)  # of the other study: this moment is past both deadlines
    let_pass(0.6)
    assert [group["key_value"] for group in world.groups() if group["state"] == "Closed"] == ["1.2.4"]
    second = association.store("1.2.3", part=part)
    let_pass(0.6)
    assert len(world.jobs()) == 1, "what was in transit is on disk, and not on record"
    world.describe(second)
    world.announced(1)
    assert {first.identifier, second.identifier} in world.members()
    assert actor.process.poll() is None


def test_an_object_that_was_aborted_lets_the_group_close(world: World) -> None:
    world.add_ae_title("AE", 0.3)
    world.start()
    association = Association(world, "AE")
    world.describe(association.store("1.2.3"))
    part = association.begin()
    let_pass(0.8)
    assert world.jobs() == []
    part.discard()
    world.announced(1)


def test_a_dead_writers_part_holds_nothing(world: World) -> None:
    world.add_ae_title("AE", 0.3)
    world.start()
    association = Association(world, "AE")
    instance = association.store("1.2.3")
    association.begin()
    world.writer.close()
    try:
        world.describe(instance)
        world.announced(1)
    finally:
        world.new_writer()


def test_of_two_versions_the_earlier_or_the_later_stays(world: World) -> None:
    """As the AE title says; the order in which two extractors describe is not the order in which was stored."""
    world.add_ae_title("KEEP", 0.8)
    world.add_ae_title("REPLACE", 0.8, overwrite=True)
    world.start()
    for ae_title in ("KEEP", "REPLACE"):
        association = Association(world, ae_title)
        old = association.store("1.2.3", "1.2.3.1", data=b"old bytes")
        new = association.store("1.2.3", "1.2.3.1", data=b"new bytes")
        longer = association.store("1.2.3", "1.2.3.2", data=b"longer than before")
        world.describe(longer, new)
        world.wait_recorded(new, state="Grouped")
        world.describe(old)
        stays, goes = (old, new) if ae_title == "KEEP" else (new, old)
        world.wait_recorded(stays, longer, state="Grouped")
        world.wait_recorded(goes, state="Superseded")
    world.announced(2)
    assert [job["instances"] for job in world.jobs()] == [2, 2]


def test_a_repeat_in_an_open_group_is_recorded(world: World) -> None:
    world.add_ae_title("AE", 0.5)
    world.start()
    association = Association(world, "AE")
    first = association.store("1.2.3", "1.2.3.1", data=b"x" * 3_000_000)
    repeat = Association(world, "AE").store("1.2.3", "1.2.3.1", data=b"x" * 3_000_000)
    other = association.store("1.2.3", "1.2.3.1", data=b"x" * 2_999_999 + b"y")
    world.describe(first, repeat, other)
    world.wait_recorded(first, state="Grouped")
    world.wait_recorded(repeat, state="Repeated")
    world.wait_recorded(other, state="Superseded")
    world.announced(1)
    assert world.jobs()[0]["instances"] == 1


def test_a_repeat_after_the_close_makes_no_job_and_anything_new_the_next_revision(world: World) -> None:
    world.add_ae_title("AE", 0.3)
    world.start()
    association = Association(world, "AE")
    first = association.store("1.2.3", "1.2.3.1", data=b"bytes")
    world.describe(first)
    world.announced(1)

    repeat = Association(world, "AE").store("1.2.3", "1.2.3.1", data=b"bytes")
    world.describe(repeat)
    world.wait_recorded(repeat, state="Repeated")
    assert len(world.groups()) == 1

    changed = association.store("1.2.3", "1.2.3.1", data=b"other")
    more = association.store("1.2.3", "1.2.3.2")
    again = association.store("1.2.3", "1.2.3.1", data=b"bytes")
    world.describe(changed)
    world.wait_recorded(changed, state="Grouped")
    world.describe(more, again)
    world.announced(1)
    assert [group["revision"] for group in world.groups()] == [0, 1]
    assert world.members()[1] == {changed.identifier, more.identifier}
    assert [job["instances"] for job in world.jobs()] == [1, 2]
    assert len({job["name"] for job in world.jobs()}) == 2


def test_a_repeat_of_what_was_held_too_long_ago_is_new(world: World) -> None:
    world.launcher.change_settings(*world.sets, "DicomAdapter.dicom.scp.repeatSeconds=1")
    world.add_ae_title("AE", 0.3)
    world.start()
    association = Association(world, "AE")
    world.describe(association.store("1.2.3", "1.2.3.1", data=b"bytes"))
    world.announced(1)
    let_pass(1.2)
    again = association.store("1.2.3", "1.2.3.1", data=b"bytes")
    world.describe(again)
    world.announced(1)
    assert world.states()[again.identifier] == "Grouped"


def test_a_description_that_comes_twice_changes_nothing(world: World) -> None:
    world.add_ae_title("AE", 0.4)
    world.start()
    instances = [Association(world, "AE").store("1.2.3") for _ in range(3)]
    world.describe(*instances, *instances)
    world.describe(*instances)
    world.wait_recorded(*instances)
    world.describe(*instances)
    world.announced(1)
    world.describe(*instances)
    marker = Association(world, "AE").store("1.2.4")
    world.describe(marker)
    world.announced(1)
    assert [len(each) for each in world.members()] == [3, 1]


def test_what_cannot_be_grouped_is_quarantined_with_its_reason(world: World) -> None:
    world.add_ae_title("AE", 0.3, groupBy="0010,0020")
    actor = world.start()
    bad = msgspec.structs.replace(Association(world, "AE").store("1.2.1"), problem="its dataset is cut short")
    empty = msgspec.structs.replace(Association(world, "AE").store("1.2.2"), attributes={PATIENT: " "})
    stranger = Association(world, "STRANGER").store("1.2.3")
    world.describe(bad, empty, stranger)
    world.wait_recorded(bad, empty, stranger, state="Quarantined")
    reasons = dict(tuples(Instance.select(Instance.identifier, Instance.reason)))
    assert reasons[bad.identifier] == "its dataset is cut short"
    assert reasons[empty.identifier] == "no value in grouping element 0010,0020"
    assert "not configured" in reasons[stranger.identifier]
    assert world.groups() == []
    actor.wait_for_log("instance_quarantined")


def test_quarantined_instances_are_released_or_discarded(world: World) -> None:
    world.add_ae_title("AE", 0.3, groupBy="0010,0020")
    actor = world.start()
    association = Association(world, "AE")
    one, two = (msgspec.structs.replace(association.store("1.2.3"), attributes={PATIENT: ""}) for _ in range(2))
    world.describe(one, two)
    world.wait_recorded(one, two, state="Quarantined")

    assert world.command(messages.DiscardInstances(identifiers=(two.identifier,))) == messages.Done(affected=1)
    assert world.states()[two.identifier] == "Discarded"
    for message in (messages.DiscardInstances, messages.ReleaseInstances):
        with pytest.raises(RefusedError, match="quarantine list"):
            world.command(message(identifiers=(two.identifier, "shard/nothing")))

    answer = world.command(messages.ReleaseInstances(identifiers=(one.identifier, two.identifier)))
    assert answer == messages.Done(affected=1)
    world.asked([one.identifier], lenient=True)
    actor.kill()  # a decision survives
    world.start()
    (asked,) = world.asked([one.identifier], lenient=True)
    world.describe(msgspec.structs.replace(one, stored=asked.stored), lenient=True)
    world.announced(1)
    assert world.groups()[0]["key_value"] == one.sop_instance_uid
    assert world.states()[one.identifier] == "Grouped"
    world.describe(one, lenient=True)
    world.describe(Association(world, "AE").store("1.2.9", patient="PAT-9"))
    world.announced(1)
    assert len(world.groups()) == 2


def test_an_edited_timeout_applies_to_open_groups(world: World) -> None:
    world.add_ae_title("AE", 3600)
    world.start()
    instance = Association(world, "AE").store("1.2.3")
    world.describe(instance)
    world.wait_recorded(instance)
    world.add_ae_title("AE", 0.1)
    assert world.command(messages.AeTitlesChanged()) == messages.Done()
    world.announced(1)


def test_a_deleted_ae_title_serves_what_is_on_the_way(world: World) -> None:
    world.add_ae_title("AE", 0.5)
    world.start()
    one, two = (Association(world, "AE").store("1.2.3") for _ in range(2))
    world.describe(one)
    world.wait_recorded(one)
    AeTitle.update(deleted_ns=time.time_ns()).execute()
    world.command(messages.AeTitlesChanged())
    world.describe(two)
    world.announced(1)
    assert world.jobs()[0]["instances"] == 2


def test_a_job_processor_that_fails_is_tried_again(world: World) -> None:
    fails = world.launcher.directory / "fails"
    fails.touch()
    world.add_ae_title("AE", 0.3, fails=str(fails))
    actor = world.start()
    association = Association(world, "AE")
    world.describe(association.store("1.2.3.secret"))
    actor.wait_for_log("group_not_closed", count=2)
    two = association.store("1.2.3.secret")
    world.describe(two)
    world.wait_recorded(two, state="Grouped")
    fails.unlink()
    world.announced(1)
    assert world.jobs()[0]["instances"] == 2
    assert "secret" not in actor.log_text()


def test_a_job_processor_that_is_not_installed_harms_its_ae_title_alone(world: World) -> None:
    world.add_ae_title("AE", 0.3)
    world.add_ae_title("OTHER", 0.3)
    AeTitle.update(processor="nowhere").where(AeTitle.name == "OTHER").execute()
    actor = world.start()
    lost, fine = Association(world, "OTHER").store("1.2.3"), Association(world, "AE").store("1.2.4")
    world.describe(lost, fine)
    world.announced(1)
    world.wait_recorded(lost, state="Quarantined")
    actor.wait_for_log("job_processor_unusable")


def test_a_host_in_an_endless_loop_dies_with_the_processor(world: World) -> None:
    """And its instances wait, on disk, for the next one."""
    loops = world.launcher.directory / "loops"
    loops.touch()
    world.add_ae_title("AE", 0.3, loops=str(loops))
    world.add_ae_title("OTHER", 0.3)
    actor = world.start()
    waiting = Association(world, "AE").store("1.2.3")
    world.describe(waiting)
    world.describe(Association(world, "OTHER").store("1.2.4"))
    (other,) = world.announced(1)
    assert [job["job_id"] for job in world.jobs()] == [other]
    hosts = [
        os.pidfd_open(int(pid)) for pid in Path(f"/proc/{actor.pid}/task/{actor.pid}/children").read_text().split()
    ]
    assert len(hosts) == 2
    actor.kill()
    for host in hosts:
        assert select.select([host], [], [], PATIENCE_SECONDS)[0]
        os.close(host)
    loops.unlink()
    world.start()
    world.asked([waiting.identifier])
    world.describe(waiting)
    world.announced(1)


def test_what_waits_for_a_job_processor_comes_again_for_another_one(world: World) -> None:
    """A person mends the AE title instead of the plug-in."""
    loops = world.launcher.directory / "loops"
    loops.touch()
    world.add_ae_title("AE", 0.3, loops=str(loops))
    actor = world.start()
    waiting = Association(world, "AE").store("1.2.3")
    world.describe(waiting)
    actor.wait_for(lambda: any("wait for their" in str(told) for told in actor.told), "an instance that waits")
    world.add_ae_title("AE", 0.3)
    assert world.command(messages.AeTitlesChanged()) == messages.Done()
    world.announced(1)
    assert world.states() == {waiting.identifier: "Grouped"}
