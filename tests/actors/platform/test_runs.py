"""Pipelines on a real platform actor: what they get, what becomes of them, what is left of them."""

import json
import os
import signal
import stat
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from protocol import channels, messages
from protocol.errors import RefusedError
from protocol.ledger import Pipeline, Run
from protocol.spool import walk_files
from protocol.states import RunState
from tests.actors.launcher import wait_until
from tests.actors.platform.world import World

_PLACES = 4

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may run pipelines as another user")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("runs"), f"DicomAdapter.services.platform.concurrentRuns={_PLACES}") as world:
        world.launcher.start("platform")
        yield world


def spool_bytes(world: World) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in walk_files(world.spool.instances)}


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_pipeline_gets_its_input_and_a_clean_environment(world: World) -> None:
    """It is told what it needs and nothing of the gateway: no variables, descriptors, terminal or core dumps."""
    code = """
import json, os, resource, sys
told = {
    "environ": dict(os.environ), "argv": sys.argv[1:], "cwd": os.getcwd(), "fds": sorted(os.listdir("/proc/self/fd")),
    "stdin": os.readlink("/proc/self/fd/0"), "core": resource.getrlimit(resource.RLIMIT_CORE), "sid": os.getsid(0),
    "pid": os.getpid(), "oom": int(open("/proc/self/oom_score_adj").read()), "umask": os.umask(0),
    "input": sorted(os.path.join(d, f) for d, _, files in os.walk(os.environ["INPUT_DIR"]) for f in files),
}
json.dump(told, open("told.json", "w"))
"""
    pipeline = world.pipeline(sys.executable, "-I", "-c", code, "--in={input}", "{output}/x", "{other}")
    job_id = world.start_run(pipeline, files=2)
    run = world.wait_run(job_id)
    assert (run.state, run.exit_code, run.error) == (RunState.SUCCEEDED, 0, "")
    output = world.output(job_id)
    told = json.loads((output / "told.json").read_text())
    directory = str(output.parent / "input")
    environ = told["environ"]
    assert (environ["JOB_ID"], environ["INPUT_DIR"], environ["OUTPUT_DIR"]) == (job_id, directory, str(output))
    assert set(environ) - {"LC_ALL", "TZ", "LC_CTYPE"} == {
        *("PATH", "LANG", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "JOB_ID", "INPUT_DIR", "OUTPUT_DIR")
    }
    assert told["argv"] == [f"--in={directory}", f"{output}/x", "{other}"]
    assert told["cwd"] == str(output)
    assert told["fds"] == ["0", "1", "2", "3"]  # 3 lists them
    assert told["stdin"] == "/dev/null"
    assert told["core"] == [0, 0]
    assert told["sid"] == told["pid"]
    assert told["oom"] == 500
    assert told["input"] == [f"{directory}/dcm/PAT-1/1.2.3/1.2.3.4/1.2.3.4.{number}.dcm" for number in (1, 2)]


def test_nothing_is_left_of_a_run_but_its_output_and_log(world: World) -> None:
    """Links and copies are gone when the run is over, since the guardian could not free them."""
    job_id = world.start_run(world.shell("echo said; touch $TMPDIR/scratch; echo made > made"))
    world.wait_run(job_id, RunState.SUCCEEDED)
    home = world.home(job_id)
    assert [str(path.relative_to(home)) for path in walk_files(home)] == [
        *("runs/1/output/made", "runs/1/output.log", "runs/1/result.json")
    ]
    assert world.log_of(job_id) == b"said\n"
    assert not (home / "payload").exists()


@pytest.mark.parametrize(
    ("script", "error", "exit_code"),
    [
        ("echo last words; exit 3", "exit code 3", 3),
        ("echo last words; kill -9 $$", "ended by signal 9 (SIGKILL)", None),
        ("echo last words; exit 255", "exit code 255", 255),
    ],
)
def test_a_failure_is_kept_with_its_reason_and_last_output(
    world: World, script: str, error: str, exit_code: int | None
) -> None:
    job_id = world.start_run(world.shell(script))
    run = world.wait_run(job_id)
    assert (run.state, run.error, run.exit_code) == (RunState.FAILED, error, exit_code)
    assert run.last_output == "last words\n"


def test_a_command_that_cannot_be_executed_says_why(world: World, tmp_path: Path) -> None:
    """Not found, not executable, its interpreter missing: three different mistakes, three sentences."""
    plain, script = tmp_path / "plain", tmp_path / "script"
    plain.write_text("x")
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    reasons = {
        "no-such-command": "command not found: no-such-command",
        str(plain): f"the command {plain} cannot be executed: Permission denied",
        str(script): f"the interpreter in the first line of {script} was not found",
        'no "such"\\\nc\u00f6mmand \U0001f600': 'command not found: no "such"\\\nc\u00f6mmand \U0001f600',
    }
    jobs = {command: world.start_run(world.pipeline(command, "{input}")) for command in reasons}
    for command, job_id in jobs.items():
        run = world.wait_run(job_id)
        assert (run.state, run.error) == (RunState.FAILED, reasons[command])


def test_a_hanging_pipeline_meets_its_time_limit(world: World) -> None:
    job_id = world.start_run(world.shell("echo begun; sleep 600", timeout_seconds=1))
    run = world.wait_run(job_id)
    assert (run.state, run.error, run.last_output) == (RunState.FAILED, "time limit of 1 s", "begun\n")
    wait_until(lambda: not world.processes(), "the end of its processes")


def test_a_flood_of_output_is_bounded(world: World) -> None:
    """The first and the last 64 KiB are kept, the pipeline is never blocked."""
    script = "echo first; head -c 50000000 /dev/zero | tr '\\0' x; echo; echo last"
    job_id = world.start_run(world.shell(script))
    run = world.wait_run(job_id)
    assert run.state == RunState.SUCCEEDED
    log = world.log_of(job_id)
    assert log.startswith(b"first\nxxx")
    assert log.endswith(b"xxx\nlast\n")
    left_out = 50_000_012 - 2 * 65536
    assert b"\n[... %d bytes left out ...]\n" % left_out in log
    assert len(log) == 2 * 65536 + len(b"\n[... %d bytes left out ...]\n" % left_out)
    assert run.last_output.endswith("xxx\nlast\n")
    assert len(run.last_output) == 4096


def test_a_daemon_that_a_pipeline_leaves_is_ended(world: World) -> None:
    """Even one with a session of its own, whose parents are gone, and that ignores every signal it can."""
    code = """
import os, signal, time
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    os.environ.clear()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    open("daemon.new", "w").write(str(os.getpid()))
    os.rename("daemon.new", "daemon")
    time.sleep(600)
while not os.path.exists("daemon"):
    time.sleep(0.01)
"""
    job_id = world.start_run(world.python(code))
    assert world.wait_run(job_id).state == RunState.SUCCEEDED
    assert not is_alive(int((world.output(job_id) / "daemon").read_text()))


def test_a_pipeline_that_rewrites_and_deletes_its_input_harms_its_own_copy_only(world: World) -> None:
    script = (
        'cd $INPUT_DIR; chmod -R u+w .; f=$(find . -name "*.dcm" | sort); for i in $f; do echo X > $i; done; rm -r dcm'
    )
    job_id = world.create_run(world.shell(script), files=3)
    before = spool_bytes(world)
    world.ask_platform(messages.StartRun(run_id=world.run(job_id).run_id))
    assert world.wait_run(job_id).state == RunState.SUCCEEDED
    assert spool_bytes(world) == before


@needs_root
def test_a_pipeline_of_another_user_reads_the_links_and_cannot_change_them(world: World) -> None:
    """It runs as that user, on the spool's own files, which stay the service's."""
    for directory in (world.launcher.directory, *world.launcher.directory.parents[:2]):
        directory.chmod(directory.stat().st_mode | 0o001)
    script = """
id -un; id -Gn
cd $INPUT_DIR
f=$(find . -name "*.dcm" | head -n 1)
stat -c %h $f
cat $f > $OUTPUT_DIR/copy || exit 1
(echo X >> $f) 2>/dev/null && exit 2
chmod u+w $f 2>/dev/null && exit 3
rm -f $f 2>/dev/null && exit 4
mv $f $f.x 2>/dev/null && exit 5
touch new 2>/dev/null && exit 6
ls $OUTPUT_DIR/../../../payload 2>/dev/null && exit 7
exit 0
"""
    job_id = world.create_run(world.pipeline("sh", "-c", script, user="nobody"))
    before = spool_bytes(world)
    world.ask_platform(messages.StartRun(run_id=world.run(job_id).run_id))
    run = world.wait_run(job_id)
    assert (run.state, run.error) == (RunState.SUCCEEDED, ""), run.last_output
    assert run.last_output.split() == ["nobody", "nogroup", "3"]
    assert (world.output(job_id) / "copy").read_bytes() in before.values()
    assert spool_bytes(world) == before
    assert {stat.S_IMODE(os.stat(path).st_mode) for path in before} == {0o440}


def test_a_user_that_does_not_exist_fails_the_run_alone(world: World) -> None:
    job_id = world.start_run(world.pipeline("true", user="no-such-user"))
    run = world.wait_run(job_id)
    assert run.state == RunState.FAILED
    assert run.error.startswith("there is no user no-such-user: create it")


def test_commands_are_repeatable_under_the_jobs_uuid(world: World) -> None:
    """Created twice, started twice: one run, executed once."""
    pipeline = world.shell("echo once >> $OUTPUT_DIR/../../../../counted")
    job_id = str(uuid.uuid4())
    create = messages.CreateRun(
        job_id=job_id, name="n", pipeline_id=pipeline, priority="normal", metadata={"Source": "AE"}
    )
    assert world.ask_platform(messages.FindRun(job_id=job_id)) == messages.Done()
    created = world.ask_platform(create)
    assert isinstance(created, messages.RunCreated)
    assert world.ask_platform(create) == created
    for value in ("A", "A"):
        world.ask_platform(messages.AddRunMetadata(run_id=created.run_id, metadata={"00100020": value}))
    found = world.ask_platform(messages.FindRun(job_id=job_id))
    assert isinstance(found, messages.RunCreated)
    assert found.metadata == {"Source": "AE", "00100020": "A"}
    assert found.state is RunState.CREATED
    for _ in range(2):
        world.ask_platform(messages.StartRun(run_id=created.run_id))
    world.wait_run(job_id, RunState.SUCCEEDED)
    assert world.ask_platform(messages.StartRun(run_id=created.run_id)) == messages.Done()
    assert (world.spool.platform / "counted").read_text() == "once\n"
    (world.spool.platform / "counted").unlink()


def test_commands_that_come_together_are_all_done_and_answered_each_for_itself(world: World) -> None:
    """The same jobs from several submitters at once, one of them for a pipeline that is not there: one run a job."""
    pipeline = world.shell("true")
    jobs = {str(uuid.uuid4()): pipeline for _ in range(11)} | {str(uuid.uuid4()): "not-there"}

    def create(job_id: str) -> messages.Message | str:
        client = world.bus.client(channels.PLATFORM_COMMANDS)
        try:
            return client.ask(
                messages.CreateRun(job_id=job_id, name="n", pipeline_id=jobs[job_id], priority="normal", metadata={}),
                30.0,
            )
        except RefusedError as error:
            return str(error)
        finally:
            client.close()

    with ThreadPoolExecutor(24) as pool:
        answers = list(zip([*jobs, *jobs], pool.map(create, [*jobs, *jobs]), strict=True))
    for job_id, answer in answers:
        if jobs[job_id] == pipeline:
            assert isinstance(answer, messages.RunCreated)
            assert Path(answer.payload_directory).is_dir()
            assert answer.run_id == world.run(job_id).run_id
        else:
            assert isinstance(answer, str)
            assert "not-there is not registered" in answer
            assert not Run.select().where(Run.job_id == job_id).exists()


def test_no_more_pipelines_run_at_a_time_than_there_are_places(world: World) -> None:
    """A place is given on when its pipeline has ended, and not sooner."""
    pipeline = world.shell("sleep 0.2")
    runs = [world.wait_run(job_id) for job_id in [world.start_run(pipeline) for _ in range(10)]]
    assert {run.state for run in runs} == {RunState.SUCCEEDED}
    results = [json.loads((world.output(run.job_id).parent / "result.json").read_text()) for run in runs]
    for result in results:
        running = [other for other in results if other["started_ns"] <= result["started_ns"] < other["ended_ns"]]
        assert len(running) <= _PLACES


def test_an_unknown_pipeline_is_refused_with_a_remedy(world: World) -> None:
    create = messages.CreateRun(job_id="1", name="n", pipeline_id="no-such", priority="normal", metadata={})
    with pytest.raises(RefusedError, match=r"no-such is not registered.*create pipeline"):
        world.ask_platform(create)
    assert not Run.select().where(Run.job_id == "1").exists()


def test_a_pipeline_that_was_deleted_meanwhile_fails_the_run(world: World) -> None:
    pipeline = world.shell("true")
    job_id = world.create_run(pipeline)
    Pipeline.delete().where(Pipeline.pipeline_id == pipeline).execute()
    world.ask_platform(messages.PipelinesChanged())
    world.ask_platform(messages.StartRun(run_id=world.run(job_id).run_id))
    run = world.wait_run(job_id)
    assert (run.state, "is not registered" in run.error) == (RunState.FAILED, True)


def test_runs_are_canceled_wherever_they_are(world: World) -> None:
    """Created: the payload goes. Running: the command is ended. Over: nothing happens."""
    created = world.create_run(world.shell("true"))
    home = world.home(created)
    assert world.ask_platform(messages.CancelRun(run_id=world.run(created).run_id)) == messages.Done(affected=1)
    assert world.run(created).state == RunState.CANCELED
    wait_until(lambda: not home.exists(), "the removal of its files")

    running = world.start_run(world.shell("touch begun; sleep 600"))
    world.wait_begun(running)
    cancel = messages.CancelRun(run_id=world.run(running).run_id)
    assert world.ask_platform(cancel) == messages.Done(affected=1)
    assert world.wait_run(running).state == RunState.CANCELED
    assert world.ask_platform(cancel) == messages.Done()
    with pytest.raises(RefusedError, match="was canceled"):
        world.ask_platform(messages.StartRun(run_id=world.run(created).run_id))


def test_output_is_patient_data_and_stays_out_of_the_log(world: World) -> None:
    job_id = world.start_run(world.shell("echo DOE^JANE; exit 1"))
    assert world.wait_run(job_id).last_output == "DOE^JANE\n"
    platform = world.launcher.actors[0]
    platform.wait_for_log(job_id, count=2)
    assert "DOE" not in platform.log_text()


def test_a_pipeline_has_the_default_signals(world: World) -> None:
    """A pipeline dies of SIGPIPE as in a shell; Python, which starts it, would ignore it."""
    job_id = world.start_run(world.shell("yes | head -n 1 > /dev/null; kill -PIPE $$; echo survived"))
    run = world.wait_run(job_id)
    assert run.error == f"ended by signal {signal.SIGPIPE.value} (SIGPIPE)"
