"""A host process by itself: what it answers, and when it ends."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol import messages
from protocol.clock import Moment
from protocol.messages import DescribedInstance, Message
from protocol.plugins import calls, limits
from protocol.plugins.process import HostProcess
from tests import plug_ins
from tests.actors.launcher import PATIENCE_SECONDS, wait_until


class Conversation:
    """A host that is asked by the test."""

    def __init__(self) -> None:
        self.host = HostProcess("wayward", "AE")
        self.host.connection.settimeout(PATIENCE_SECONDS)
        self._frames = calls.Frames(messages.decoder(calls.FromHost))
        self._heard: list[Message] = []

    def ask(self, message: Message) -> Message:
        """Say something, and wait for what comes next."""
        self.host.connection.sendall(calls.frame(message))
        return self.hear()

    def hear(self) -> Message:
        while not self._heard:
            data = self.host.connection.recv(65536)
            assert data, f"it {self.end()}"
            self._heard += self._frames.feed(data)
        return self._heard.pop(0)

    def load(self, directory: Path, name: str = "wayward", **settings: str) -> Message:
        told = {"pipeline": "id", "directory": str(directory), **settings}
        return self.ask(calls.Load(name=name, ae_title="AE", settings=told))

    def end(self) -> str:
        """How it ended."""
        assert select.select([self.host.pidfd], [], [], PATIENCE_SECONDS)[0], "it does not end"
        return self.host.reap()


@pytest.fixture
def talk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Conversation]:
    for name, value in plug_ins.install_wayward(tmp_path).items():
        monkeypatch.setenv(name, value)
    made = Conversation()
    yield made
    if made.host.connection.fileno() >= 0:
        made.host.kill()
        made.end()


def described(*studies: str) -> tuple[DescribedInstance, ...]:
    return tuple(
        DescribedInstance(
            identifier=f"shard/a-{number:06d}", stored=Moment(0), study_uid=study, attributes={"0020000D": study}
        )
        for number, study in enumerate(studies)
    )


def test_it_loads_groups_and_plans(talk: Conversation, tmp_path: Path) -> None:
    loaded = talk.load(tmp_path, seconds="7", labels="one two")
    assert loaded == calls.Loaded(tags=("0020000D",), timeout_seconds=7.0, retry_delay_seconds=0.5, label="Wayward")
    grouped = talk.ask(calls.GroupInstances(instances=described("1.2", "1.3", "1.2")))
    assert isinstance(grouped, calls.Grouped)
    assert [key.key for key in grouped.keys] == ["study 1.2", "study 1.3", "study 1.2"]
    planned = talk.ask(calls.PlanJobs(group_key="study 1.2", count=2))
    assert isinstance(planned, calls.Planned)
    assert [(plan.label, plan.pipeline_id, plan.priority) for plan in planned.plans] == [
        ("one", "id", "higher"),
        ("two", "id", "higher"),
    ]


def test_a_groups_instances_come_in_pages_when_it_looks_at_them(talk: Conversation, tmp_path: Path) -> None:
    talk.load(tmp_path, count="")
    assert talk.ask(calls.PlanJobs(group_key="study 1", count=1200)) == calls.MembersWanted()
    for page in range(3):
        several = tuple(
            DescribedInstance(identifier="a", stored=Moment(0), sop_instance_uid=str(400 * page + number))
            for number in range(400)
        )
        assert talk.ask(calls.Members(instances=several)) == calls.MembersWanted()
    planned = talk.ask(calls.Members())
    assert isinstance(planned, calls.Planned)
    assert planned.plans[0].label == "1200-1200"


def test_an_error_costs_its_instance_and_tells_no_patient(talk: Conversation, tmp_path: Path) -> None:
    (tmp_path / "group_key").write_text("raise_an_error 1.3")
    (tmp_path / "plan").write_text("raise_an_error")
    talk.load(tmp_path)
    grouped = talk.ask(calls.GroupInstances(instances=described("1.2", "1.3", "1.4")))
    assert isinstance(grouped, calls.Grouped)
    assert [(key.key, key.error) for key in grouped.keys] == [("study 1.2", ""), ("", "KeyError"), ("study 1.4", "")]
    raised = talk.ask(calls.PlanJobs(group_key="study 1.2", count=1))
    assert isinstance(raised, calls.Raised)
    for trace in (grouped.trace, raised.trace):
        assert "in raise_an_error" in trace
        assert "SECRET" not in trace


def test_settings_that_are_refused(talk: Conversation, tmp_path: Path) -> None:
    rejected = talk.ask(calls.Load(name="wayward", ae_title="AE", settings={}))
    assert rejected == calls.Rejected(problems=("pipeline is missing: give the ID of a pipeline",))
    missing = talk.load(tmp_path, "nowhere")
    assert isinstance(missing, calls.Rejected)
    assert "not installed: installed are aetitle, wayward" in missing.problems[0]


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1", "1e9"])
def test_a_timeout_that_none_can_count_with(talk: Conversation, tmp_path: Path, seconds: str) -> None:
    rejected = talk.load(tmp_path, seconds=seconds)
    assert isinstance(rejected, calls.Rejected)
    assert rejected.problems[0].startswith("the job processor's timeout_seconds is ")


def test_jobs_without_number(talk: Conversation, tmp_path: Path) -> None:
    talk.load(tmp_path, labels="a " * (limits.MOST_JOBS + 1))
    raised = talk.ask(calls.PlanJobs(group_key="study 1", count=1))
    assert isinstance(raised, calls.Raised)
    assert raised.error == "TooManyJobsError"


def test_memory_is_bounded(talk: Conversation, tmp_path: Path) -> None:
    (tmp_path / "group_key").write_text("take_all_memory")
    talk.load(tmp_path)
    grouped = talk.ask(calls.GroupInstances(instances=described("1")))
    assert isinstance(grouped, calls.Grouped)
    assert grouped.keys[0].error == "MemoryError"


@pytest.mark.parametrize(
    ("how", "ended"),
    [("crash", "was ended by SIGSEGV"), ("leave", "exited with code 3"), ("leave_politely", "exited with code 4")],
)
def test_its_end_is_told(talk: Conversation, tmp_path: Path, how: str, ended: str) -> None:
    (tmp_path / "init").write_text(how)
    talk.host.connection.sendall(
        calls.frame(calls.Load(name="wayward", ae_title="AE", settings={"pipeline": "x", "directory": str(tmp_path)}))
    )
    assert talk.end() == ended


def test_it_ends_when_the_connection_does(talk: Conversation, tmp_path: Path) -> None:
    talk.load(tmp_path)
    talk.host.connection.shutdown(1)
    assert talk.end() == "exited with code 0"


def test_what_it_started_ends_with_it(talk: Conversation, tmp_path: Path) -> None:
    (tmp_path / "init").write_text("fork")
    talk.load(tmp_path)
    (child,) = Path(f"/proc/{talk.host.pid}/task/{talk.host.pid}/children").read_text().split()
    fd = os.pidfd_open(int(child))
    talk.host.kill()
    assert select.select([fd], [], [], PATIENCE_SECONDS)[0]
    os.close(fd)


_PARENT = """
import sys
from protocol.plugins import calls
from protocol.plugins.process import HostProcess
host = HostProcess("wayward", "AE")
host.connection.sendall(calls.frame(calls.Load(name="wayward", ae_title="AE", settings={"directory": sys.argv[1]})))
print(host.pid, flush=True)
sys.stdin.read()
"""


def test_it_dies_with_its_parent_also_in_an_endless_loop(talk: Conversation, tmp_path: Path) -> None:
    """`talk` is there for its installed package."""
    (tmp_path / "validate").write_text("loop")
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        fd = os.pidfd_open(pid)
        stat = Path(f"/proc/{pid}/stat")
        wait_until(lambda: int(stat.read_text().rpartition(")")[2].split()[11]) > 50, "half a second of its CPU time")
        parent.send_signal(signal.SIGKILL)
        assert select.select([fd], [], [], PATIENCE_SECONDS)[0]
        os.close(fd)
