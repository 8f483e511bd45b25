"""A ledger that does not answer, a disk without room, and what runs take of it: nothing is lost, and all goes on."""

import contextlib
import os
import resource
import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from actors.platform import inputs
from actors.platform.accounts import Account
from actors.platform.usage import Usage, own_bytes
from protocol import messages
from protocol.errors import UnavailableError
from protocol.ledger import Run
from protocol.spool import floor_bytes
from protocol.states import RunState
from tests.actors.launcher import wait_until
from tests.actors.platform.world import World

WAITING = "touch begun; until [ -e {go} ]; do sleep 0.02; done; echo done > made"
KB = 1000


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path, "DicomAdapter.storage.volumeSize=100G", "DicomAdapter.storage.reserveSpaceGB=0") as world:
        yield world


@contextlib.contextmanager
def ledger_locked(world: World) -> Iterator[None]:
    """Nobody else can write while the block lasts, as on a full disk."""
    holder = sqlite3.connect(world.launcher.directory / "ledger.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        holder.close()


def test_runs_end_and_begin_when_the_ledger_answers_again(world: World, tmp_path: Path) -> None:
    platform = world.launcher.start("platform")
    go = tmp_path / "go"
    first = world.start_run(world.shell(WAITING.replace("{go}", str(go))))
    world.wait_begun(first)
    second = world.create_run(world.shell("true"))
    pipeline = world.shell("true")
    third = str(uuid.uuid4())
    create = messages.CreateRun(job_id=third, name="n", pipeline_id=pipeline, priority="normal", metadata={})
    with ledger_locked(world):
        go.touch()
        platform.wait_for_log("ledger_away")
        with pytest.raises(UnavailableError):
            world.ask_platform(messages.StartRun(run_id=world.run(second).run_id))
        with pytest.raises(UnavailableError):
            world.ask_platform(create)
        assert world.run(first).state == RunState.RUNNING
        # It refuses at once while it waits, so that its heart beats.
        platform.wait_for(lambda: len(platform.told) > 3, "heartbeats")
    world.wait_run(first, RunState.SUCCEEDED)
    world.ask_platform(messages.StartRun(run_id=world.run(second).run_id))
    world.wait_run(second, RunState.SUCCEEDED)
    assert isinstance(world.ask_platform(create), messages.RunCreated)
    platform.wait_for_log("ledger_answers_again")
    assert (world.run(first).tries, world.run(second).tries) == (1, 1)
    assert Run.select().count() == 3


def test_the_result_has_its_room_before_the_command_runs(world: World) -> None:
    """On a full disk a run that ends must be able to say so, or it would be run again."""
    world.launcher.start("platform")
    script = "stat -c '%s %b' ../result.json.new > room; stat -c %s ../shim.lock >> room"
    job = world.start_run(world.shell(script))
    world.wait_run(job, RunState.SUCCEEDED)
    size, blocks, lock = map(int, (world.output(job) / "room").read_text().split())
    assert size == 4096
    assert blocks >= 8
    assert lock == 16
    assert not list(world.home(job).rglob("*.new"))


def test_what_runs_take_is_on_the_board(world: World, tmp_path: Path) -> None:
    board = world.launcher.board
    platform = world.launcher.start("platform")
    go = tmp_path / "go"
    write = "head -c 500000 /dev/zero > made; echo 1234567890 >> made;"
    job = world.start_run(world.shell(write + WAITING.replace("{go}", str(go))), files=3)
    world.wait_begun(job)
    # Three files of 1000 bytes were copied; the payload's own are links.
    wait_until(lambda: board.platform_bytes >= 500 * KB + 11, "the bytes that were written", 15)
    assert board.platform_bytes < 504 * KB

    # A successor counts the same.
    platform.kill()
    board.set_platform_bytes(0)
    world.launcher.start("platform")
    wait_until(lambda: 500 * KB < board.platform_bytes < 504 * KB, "the same bytes", 15)

    go.touch()
    run = world.wait_run(job, RunState.SUCCEEDED)
    kept = sum(path.stat().st_size for path in world.home(job).rglob("*") if path.is_file())
    wait_until(lambda: board.platform_bytes == world.run(job).kept_bytes, "the end of the run's input")
    assert run.kept_bytes == kept < 2 * KB  # `made` was written anew


def test_what_was_kept_counts_after_a_start_unless_somebody_removed_it(world: World) -> None:
    board = world.launcher.board
    platform = world.launcher.start("platform")
    jobs = [world.start_run(world.shell("head -c 100000 /dev/zero > made")) for _ in range(2)]
    for job in jobs:
        world.wait_run(job, RunState.SUCCEEDED)
    wait_until(lambda: board.platform_bytes > 200 * KB, "both results")
    platform.kill()
    removed = world.home(jobs[0])
    removed.rename(removed.parent.parent / "elsewhere")
    world.launcher.start("platform")
    assert 100 * KB < board.platform_bytes < 102 * KB


def test_a_copy_leaves_room_for_what_frees_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 MB of which 1 % is nobody's: what would reach into that is put off before it fills the disk."""
    payload = tmp_path / "payload"
    payload.mkdir()
    for name in "ab":
        (payload / name).write_bytes(bytes(50 * KB))
    total = 64 * 2**20
    floor = floor_bytes(total)
    free = floor + 100 * KB
    monkeypatch.setattr(inputs, "_reflink", lambda _: False)
    monkeypatch.setattr(
        "actors.platform.inputs.os.statvfs",
        lambda _: SimpleNamespace(f_bavail=free, f_blocks=total, f_frsize=1),
    )
    account = Account(name="me", uid=-1, gid=os.getegid(), groups=(), home="/")
    assert inputs.Inputs().make(payload, tmp_path / "fits", account) == 100 * KB
    free -= 1
    with pytest.raises(OSError, match="No space left"):
        inputs.Inputs().make(payload, tmp_path / "does-not", account)
    assert not [path for path in (tmp_path / "does-not").rglob("*") if path.is_file()]


def test_payloads_without_a_row_are_left_to_the_guardian(world: World) -> None:
    """They may be all that is left of something, after the ledger was lost."""
    over, unknown = world.spool.platform / "over", world.spool.platform / "unknown"
    for home in (over, unknown):
        (home / "payload").mkdir(parents=True)
    columns = {"name": "n", "pipeline_id": "p", "priority": "normal", "created_ns": 0}
    Run.create(run_id="r", job_id="j", payload_id="over", state=RunState.FAILED, **columns)
    world.launcher.start("platform")
    assert not (over / "payload").exists()
    assert (unknown / "payload").exists()


def test_own_bytes_are_those_without_another_name(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "deep").mkdir(parents=True)
    (home / "own").write_bytes(b"x" * 100)
    (home / "deep" / "own").write_bytes(b"x" * 10)
    (tmp_path / "elsewhere").write_bytes(b"x" * 1000)
    os.link(tmp_path / "elsewhere", home / "deep" / "link")
    (home / "symlink").symlink_to(tmp_path / "elsewhere")
    with (home / "hole").open("wb") as file:
        file.truncate(10**9)
    assert own_bytes(home, tmp_path / "missing") == 110


def test_usage_forgets_what_is_over() -> None:
    told: list[int] = []
    usage = Usage(told.append, 1000)
    usage.copied("a", 50)
    usage.written("a", 7)
    usage.written("a", 9)
    usage.ended("a", 20)
    usage.written("a", 11)  # it was looked at just before its end
    assert told == [1000, 1050, 1057, 1059, 1020]


def test_a_run_is_over_when_its_try_is_cleaned_up(world: World, tmp_path: Path) -> None:
    """A platform without descriptors can neither sync a result nor delete an input; it goes on when it has some."""
    platform = world.launcher.start("platform")
    go = tmp_path / "go"
    job = world.start_run(world.shell(WAITING.replace("{go}", str(go))))
    world.wait_begun(job)
    wait_until(lambda: "run_started" in platform.log_text(), "the shim is watched")
    hard = resource.prlimit(platform.pid, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(platform.pid, resource.RLIMIT_NOFILE, (3, hard))
    go.touch()
    assert "Too many open files" in platform.wait_for_log("run_not_concluded")
    assert world.run(job).state == RunState.RUNNING
    resource.prlimit(platform.pid, resource.RLIMIT_NOFILE, (hard, hard))
    world.wait_run(job, RunState.SUCCEEDED)
    assert {path.name for path in (world.home(job) / "runs" / "1").iterdir()} == {"output", "output.log", "result.json"}
    assert not (world.home(job) / "payload").exists()
