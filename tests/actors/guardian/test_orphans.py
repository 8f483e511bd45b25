"""Orphans are what nothing refers to; all else stays, above all what nobody has had yet."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from actors.guardian.orphans import Orphans
from protocol.ledger import Submission
from protocol.spool import new_association_id
from protocol.states import InstanceState, JobState, RunState
from tests.actors.guardian.house import SIZE, House

OLD_SECONDS = 3600
AGE_SECONDS = 600


def age(path: Path) -> Path:
    """Let something be an hour old."""
    then = time.time() - OLD_SECONDS
    os.utime(path, (then, then), follow_symlinks=False)
    return path


def removed(house: House) -> dict[str, int]:
    """One round; what was removed, by kind."""
    return {step.what: step.count for step in Orphans(house.spool, AGE_SECONDS).steps() if step.count}


def test_a_spool_in_use_has_none(house: House) -> None:
    group = house.group(JobState.QUEUED)
    kept = [
        house.store(group),
        house.store(None, InstanceState.QUARANTINED),
        house.store(None, InstanceState.DISCARDED),
        house.file(),
    ]
    house.spool.access.write_text("{}")
    age(house.spool.access)
    part = house.writer.open_part(new_association_id(), 1)
    for state in RunState:
        age(house.run(f"job-{state}", state))
    homes = sorted(os.listdir(house.spool.platform))

    assert removed(house) == {}
    assert all(map(house.holds, kept))
    assert Path(part.path).exists()
    assert house.spool.access.exists()
    assert sorted(os.listdir(house.spool.platform)) == homes


def test_an_access_list_that_was_never_finished(house: House) -> None:
    left = house.spool.root / ".access.json.0a1b2c3d"
    left.write_text("{")
    age(left)
    under_way = house.spool.root / ".access.json.99999999"
    under_way.write_text("{")
    assert removed(house) == {"unfinished access lists": 1}
    assert not left.exists()
    assert under_way.exists()


def test_what_a_killed_receiver_leaves(house: House) -> None:
    script = (
        "import os, signal, sys\n"
        "from protocol.spool import ShardWriter, Spool\n"
        "writer = ShardWriter(Spool(sys.argv[1]), 'receiver')\n"
        "done, part = writer.open_part('a', 1), writer.open_part('a', 2)\n"
        "writer.publish([done])\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(house.spool.root)], check=False)
    mine = house.writer.open_part(new_association_id(), 1)
    assert len(os.listdir(house.spool.writers)) == 2
    assert removed(house) == {"parts of dead receivers": 1}
    assert os.listdir(house.spool.writers) == [f"{house.writer.writer}.lock"]
    assert Path(mine.path).exists()
    # What it had named may have been acknowledged: it is nobody's yet, and stays.
    assert len(list(house.spool.instances.glob("*/*.dcm"))) == 1


def test_files_of_a_reclaimed_group(house: House) -> None:
    group = house.group(JobState.COMPLETED)
    left, kept, unknown = house.past(group), house.store(group), house.file()
    steps = [step for step in Orphans(house.spool, AGE_SECONDS).steps() if step.count]
    assert [(step.what, step.count, step.bytes) for step in steps] == [("reclaimed instances", 1, SIZE)]
    assert not house.holds(left)
    assert house.holds(kept)
    assert house.holds(unknown)


@pytest.mark.parametrize("links", [0, 2])
def test_a_payload_whose_run_never_came_on_record(house: House, links: int) -> None:
    instances = [house.store(house.group(JobState.QUEUED)) for _ in range(links)]
    home = age(house.payload("orphan", *instances))
    assert removed(house) == {"payloads without a run": 1}
    assert not home.exists()
    assert os.listdir(house.spool.platform) == []
    assert all(map(house.holds, instances))


def test_a_young_payload_may_be_about_to_come_on_record(house: House) -> None:
    home = house.payload("young")
    assert removed(house) == {}
    assert home.exists()


def test_a_payload_that_only_the_submitter_knows(house: House) -> None:
    home = age(house.payload("known"))
    Submission.create(job_id="j", payload_id="known", state=JobState.CREATED, created_ns=0, updated_ns=0)
    assert removed(house) == {}
    assert home.exists()


@pytest.mark.parametrize("twice", [False, True])
def test_the_only_copy_is_never_removed(house: House, twice: bool) -> None:
    """Without its row it is not known whether anybody had it: the ledger was lost. A second name here is no copy."""
    identifier = house.file()
    home = house.payload("unknown", *([identifier] * (1 + twice)))
    Path(house.spool.instance_path(identifier)).unlink()
    age(home)
    orphans = Orphans(house.spool, AGE_SECONDS)
    assert sum(step.count for step in orphans.steps()) == 0
    assert orphans.unknown == {"unknown"}
    assert len(list(home.rglob("*.dcm"))) == 1 + twice


def test_a_payload_that_was_put_aside_by_a_killed_guardian(house: House) -> None:
    known = age(house.run("job", RunState.PENDING))
    known.rename(known.with_name(f".orphan-{known.name}"))
    age(house.payload(".orphan-unknown"))
    assert removed(house) == {"payloads without a run": 1}
    assert os.listdir(house.spool.platform) == [known.name]


def test_what_is_no_directory_is_not_ours(house: House) -> None:
    note = house.spool.platform / "README"
    note.write_text("a person's")
    age(note)
    assert removed(house) == {}
    assert note.exists()
