"""A run that failed keeps its input, is run again when a person says so, and gives its input up in the end."""

import errno
import os
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.platform import kept_inputs, leftovers
from actors.platform.freeing import Freeing
from actors.platform.runs import Runs
from protocol import messages
from protocol.availability import Availability
from protocol.errors import RefusedError
from protocol.ledger import Ledger, Pipeline, Result, Run
from protocol.logs import EventLogger
from protocol.platforms.embedded import EmbeddedPlatform
from protocol.spool import Spool
from protocol.states import RunState
from tests.actors.launcher import wait_until
from tests.actors.platform.loop import Loop
from tests.actors.platform.world import World

WEEK_NS = 7 * 24 * 3600 * 10**9
# Fails, unless the file beside the pipeline's directory is there; tells what it read and whether it begins afresh.
UNLESS_MENDED = 'test -z "$(ls -A $OUTPUT_DIR)" && find $INPUT_DIR -type f | wc -l | tee $OUTPUT_DIR/seen && test -e {}'


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as world:
        yield world


def failed(world: World, mended: Path, files: int = 3) -> str:
    job_id = world.start_run(world.shell(UNLESS_MENDED.format(mended)), files=files)
    assert world.wait_run(job_id).state == RunState.FAILED
    return job_id


def again(world: World, *job_ids: str, decided_ns: int = 0) -> messages.Message:
    return world.ask_platform(messages.RunAgain(job_ids=job_ids, decided_ns=decided_ns or time.time_ns()))


def test_it_is_run_again_with_the_same_input(world: World, tmp_path: Path) -> None:
    world.launcher.start("platform")
    job_id = failed(world, tmp_path / "mended")
    assert world.run(job_id).keeps_input
    assert len([path for path in (world.home(job_id) / "payload").rglob("*") if path.is_file()]) == 3
    assert again(world, job_id) == messages.Done(affected=1)
    assert world.wait_run(job_id).state == RunState.FAILED  # nobody has mended anything

    (tmp_path / "mended").touch()
    assert again(world, job_id) == messages.Done(affected=1)
    run = world.wait_run(job_id, RunState.SUCCEEDED)
    assert (run.tries, run.error, run.exit_code, run.keeps_input) == (3, "", 0, False)
    assert (world.output(job_id) / "seen").read_text().strip() == "3"
    assert Result.get(Result.job_id == job_id).files == ["seen"]
    assert not (world.home(job_id) / "payload").exists()
    assert [path.name for path in (world.home(job_id) / "runs").iterdir()] == ["3"]  # what former tries left is gone


def test_what_cannot_be_run_again(world: World, tmp_path: Path) -> None:
    """What succeeded, what is not known, what lost its input; and these keep no other from it."""
    world.launcher.start("platform")
    succeeded = world.start_run(world.shell("true"))
    world.wait_run(succeeded, RunState.SUCCEEDED)
    lost, good = failed(world, tmp_path / "mended"), failed(world, tmp_path / "mended")
    (world.home(lost) / "payload").rename(tmp_path / "away")
    for job_id, words in ((succeeded, "is Succeeded"), (str(uuid.uuid4()), "not know"), (lost, "not kept any more")):
        with pytest.raises(RefusedError, match=words):
            again(world, job_id)
    (tmp_path / "mended").touch()
    assert again(world, succeeded, good, lost) == messages.Done(affected=1)
    world.wait_run(good, RunState.SUCCEEDED)
    assert [world.run(job_id).state for job_id in (succeeded, lost)] == [RunState.SUCCEEDED, RunState.FAILED]


def test_asked_twice_it_runs_once(world: World, tmp_path: Path) -> None:
    """As when the first answer was lost."""
    world.launcher.start("platform")
    go = tmp_path / "go"
    first = f"test -e {go}.first || {{ touch {go}.first; exit 1; }}"
    job_id = world.start_run(world.shell(f"{first}; touch {go}.began; cat {go}"))
    world.wait_run(job_id, RunState.FAILED)
    os.mkfifo(go)
    assert again(world, job_id) == messages.Done(affected=1)
    wait_until(lambda: Path(f"{go}.began").exists(), "the second try")
    assert again(world, job_id) == messages.Done(affected=1)
    go.write_text("on\n")
    assert world.wait_run(job_id, RunState.SUCCEEDED).tries == 2


@pytest.mark.parametrize("is_mended", [False, True])
def test_a_repeated_command_has_one_effect(world: World, tmp_path: Path, *, is_mended: bool) -> None:
    """Its first answer was lost, and the try is over before it comes again; a new decision is another thing."""
    world.launcher.start("platform")
    job_id = failed(world, tmp_path / "mended")
    if is_mended:
        (tmp_path / "mended").touch()
    decided_ns = time.time_ns()
    for _ in range(2):
        assert again(world, job_id, decided_ns=decided_ns) == messages.Done(affected=1)
        wait_until(lambda: world.run(job_id).tries == 2, "the second try")
        run = world.wait_run(job_id)
    assert (run.state, run.tries) == (RunState.SUCCEEDED if is_mended else RunState.FAILED, 2)
    if is_mended:
        with pytest.raises(RefusedError, match="is Succeeded"):
            again(world, job_id)
    else:
        again(world, job_id)
        wait_until(lambda: world.run(job_id).tries == 3, "the third try")
        world.wait_run(job_id)


def test_what_it_leaves_is_counted_once(world: World, tmp_path: Path) -> None:
    """The quota is kept by what is left now, not by what former tries had left; also of what is canceled."""
    with World(tmp_path / "one", "DicomAdapter.services.platform.concurrentRuns=1") as one:
        one.launcher.start("platform")
        writing = f"head -c 100000 /dev/zero > $OUTPUT_DIR/made; test -e {tmp_path}/mended"

        def counted() -> bool:
            rows = sum(run.kept_bytes for run in Run.select())
            return rows == one.launcher.board.platform_bytes

        job_ids = [one.start_run(one.shell(writing)) for _ in range(2)]
        for job_id in job_ids:
            assert one.wait_run(job_id).kept_bytes >= 100_000
        wait_until(counted, "the bytes of two failed runs")
        assert again(one, job_ids[0]) == messages.Done(affected=1)
        wait_until(lambda: one.run(job_ids[0]).tries == 2, "another try")
        one.wait_run(job_ids[0], RunState.FAILED)
        wait_until(counted, "the same after another try")
        holding = one.start_run(one.shell("touch $OUTPUT_DIR/begun; exec sleep 60"))
        one.wait_begun(holding)
        (tmp_path / "mended").touch()
        again(one, *job_ids)
        one.ask_platform(messages.CancelRun(run_id=one.run(job_ids[1]).run_id))
        one.ask_platform(messages.CancelRun(run_id=one.run(holding).run_id))
        one.wait_run(job_ids[0], RunState.SUCCEEDED)
        one.wait_run(holding, RunState.CANCELED)
        wait_until(counted, "what is left of a success and two cancelations")
        assert one.run(job_ids[1]).kept_bytes == 0


def test_one_that_waits_again_can_be_canceled(world: World, tmp_path: Path) -> None:
    with World(tmp_path / "one", "DicomAdapter.services.platform.concurrentRuns=1") as one:
        one.launcher.start("platform")
        job_id = failed(one, tmp_path / "mended")
        holding = one.start_run(one.shell("touch $OUTPUT_DIR/begun; exec sleep 60"))
        one.wait_begun(holding)
        assert again(one, job_id) == messages.Done(affected=1)
        assert one.ask_platform(messages.CancelRun(run_id=one.run(job_id).run_id)) == messages.Done(affected=1)
        run = one.run(job_id)
        assert (run.state, run.keeps_input, run.kept_bytes) == (RunState.CANCELED, False, 0)
        with pytest.raises(RefusedError, match="is Canceled"):
            again(one, job_id)
        one.ask_platform(messages.CancelRun(run_id=one.run(holding).run_id))
        one.wait_run(holding, RunState.CANCELED)


def test_a_pipeline_that_was_deleted(world: World, tmp_path: Path) -> None:
    """Registered again under the same ID, it has what failed meanwhile."""
    world.launcher.start("platform")
    (tmp_path / "mended").touch()
    pipeline_id = world.shell(UNLESS_MENDED.format(tmp_path / "mended"))
    row = Pipeline.get(Pipeline.pipeline_id == pipeline_id)
    job_id = world.create_run(pipeline_id)
    Pipeline.delete().where(Pipeline.pipeline_id == pipeline_id).execute()
    world.ask_platform(messages.StartRun(run_id=world.run(job_id).run_id))
    assert "create pipeline --id" in world.wait_run(job_id, RunState.FAILED).error
    row.save(force_insert=True)
    assert again(world, job_id) == messages.Done(affected=1)
    world.wait_run(job_id, RunState.SUCCEEDED)


def test_what_was_killed_keeps_the_input(world: World, tmp_path: Path) -> None:
    """The platform is killed between two tries; its successor has the run, and removes no payload of it."""
    platform = world.launcher.start("platform")
    job_id, given_up = failed(world, tmp_path / "mended"), failed(world, tmp_path / "mended")
    platform.kill()
    Run.update(keeps_input=False).where(Run.job_id == given_up).execute()
    world.launcher.start("platform")
    wait_until(lambda: not (world.home(given_up) / "payload").exists(), "the payload that a kill had left goes")
    (tmp_path / "mended").touch()
    with pytest.raises(RefusedError, match="not kept any more"):
        again(world, given_up)
    assert again(world, job_id) == messages.Done(affected=1)
    world.wait_run(job_id, RunState.SUCCEEDED)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    yield ledger
    ledger.close()


def test_inputs_are_given_up(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a week; or the oldest, some at a time, when room is short. What is being run again keeps its input."""
    spool = Spool(tmp_path / "spool")
    spool.create()
    monkeypatch.setattr(kept_inputs, "_AT_ONCE", 2)
    now = time.time_ns()
    states = {"old": (RunState.FAILED, now - WEEK_NS - 10**9), "again": (RunState.PENDING, None)}
    states |= {f"new{n}": (RunState.FAILED, now - (9 - n) * 10**9) for n in range(3)}
    states |= {"new3": (RunState.FAILED, now + 3600 * 10**9)}  # and then the clock was set back
    for name, (state, ended_ns) in states.items():
        columns = {"job_id": name, "payload_id": name, "name": "n", "pipeline_id": "p", "priority": "normal"}
        Run.create(run_id=name, state=state, keeps_input=True, created_ns=now, ended_ns=ended_ns, **columns)
        (spool.platform / name / "payload").mkdir(parents=True)
    availability = Availability(ledger, EventLogger("adapter.platform"))
    loop = Loop()
    Freeing(loop, Runs(ledger, availability, spool), lambda _: None, availability)  # type: ignore[arg-type]

    def kept() -> set[str]:
        loop.look()
        rows = {run.run_id for run in Run.select().where(Run.keeps_input)}
        assert {path.parent.name for path in spool.platform.glob("*/payload")} == rows
        return rows

    assert kept() == kept() == set(states) - {"old"}
    loop.is_short = True
    assert kept() == {"again", "new2", "new3"}
    assert kept() == kept() == {"again"}


def test_a_payload_that_cannot_be_removed_is_tried_again(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And holds up no other."""
    spool = Spool(tmp_path / "spool")
    spool.create()
    now = time.time_ns()
    for number in range(3):
        columns = {"job_id": f"r{number}", "name": "n", "pipeline_id": "p", "priority": "normal", "created_ns": now}
        ended = {"state": RunState.FAILED, "keeps_input": True, "ended_ns": now - WEEK_NS - 10**9 + number}
        Run.create(run_id=f"r{number}", payload_id=f"r{number}", **columns, **ended)
        (spool.platform / f"r{number}" / "payload").mkdir(parents=True)
    trouble = [spool.platform / "r0" / "payload"]

    def remove(path: Path) -> None:
        if path in trouble:
            raise OSError(errno.EIO, "no")
        leftovers.remove_tree(path)

    monkeypatch.setattr(kept_inputs, "remove_tree", remove)
    availability = Availability(ledger, EventLogger("adapter.platform"))
    loop = Loop()
    Freeing(loop, Runs(ledger, availability, spool), lambda _: None, availability)  # type: ignore[arg-type]
    loop.is_short = True
    loop.look()
    assert list(spool.platform.glob("*/payload")) == trouble
    trouble.clear()
    loop.look()  # not at once again
    assert list(spool.platform.glob("*/payload"))
    later = time.monotonic() + 31.0
    monkeypatch.setattr(time, "monotonic", lambda: later)
    loop.look()
    assert not list(spool.platform.glob("*/payload"))


def test_the_look_for_old_inputs_is_cheap(ledger: Ledger, tmp_path: Path) -> None:
    """It goes by the index, since years of runs may be on record; on a server its planner decides."""
    asked: list[tuple[str, list[object]]] = []
    database = ledger.database
    run_sql, database.execute_sql = (
        database.execute_sql,
        lambda sql, params=(), *_: (
            asked.append((sql, params)) or run_sql(sql, params)  # type: ignore[func-returns-value]
        ),
    )
    runs = Runs(ledger, Availability(ledger, EventLogger("adapter.platform")), Spool(tmp_path))
    runs.give_up_inputs(5, 2)
    runs.kept_inputs()
    EmbeddedPlatform(None, threading.Event()).rerunnable(())  # type: ignore[arg-type]
    queries = [each for each in asked if each[0].startswith("SELECT")]
    assert len(queries) == 3
    for sql, params in queries:
        plan = str(run_sql(f"EXPLAIN QUERY PLAN {sql}", params).fetchall())
        assert "INDEX run_keeps_input" in plan


def test_what_is_run_again_waits_from_then_on(world: World, tmp_path: Path) -> None:
    """However old it is: it goes behind what waits, and not before an emergency."""
    with World(tmp_path / "one", "DicomAdapter.services.platform.concurrentRuns=1") as one:
        one.launcher.start("platform")
        old = failed(one, tmp_path / "mended")
        Run.update(created_ns=Run.created_ns - 30 * 24 * 3600 * 10**9).where(Run.job_id == old).execute()
        holding = one.start_run(one.shell(f"touch $OUTPUT_DIR/begun; until test -e {tmp_path}/go; do sleep 0.05; done"))
        one.wait_begun(holding)
        emergency = one.start_run(one.shell("true"), "immediate")
        usual = one.start_run(one.shell("true"))
        assert again(one, old) == messages.Done(affected=1)
        (tmp_path / "mended").touch()
        (tmp_path / "go").touch()
        runs = [one.wait_run(job_id, RunState.SUCCEEDED) for job_id in (emergency, usual, old)]
        assert sorted(runs, key=lambda run: run.started_ns) == runs
