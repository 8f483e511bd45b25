"""What tests of the submitter and of the platform share: groups with real files, pipelines, jobs, and their rows."""

import contextlib
import os
import sys
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Self

from protocol import channels, messages
from protocol.bus import Bus, Client, Sender
from protocol.ledger import Group, Instance, Job, Ledger, Pipeline, Run, Submission
from protocol.spool import FILE_MODE, Spool, payload_name
from protocol.states import GroupState, InstanceState, JobState, RunState
from tests.actors.launcher import Launcher, wait_until

PATIENT, STUDY, SERIES = "PAT-1", "1.2.3", "1.2.3.4"


class World:
    """A spool with instances, a ledger with decisions, and the two ends of the bus that other actors would hold.

    Args:
        directory: of the test.
        sets: settings, as for the launcher.
    """

    def __init__(self, directory: Path, *sets: str) -> None:
        defaults = ("DicomAdapter.services.platform.retryDelaySeconds=0", "DicomAdapter.services.stopSeconds=5")
        self.launcher = Launcher(directory, *defaults, *sets)
        self.spool = self.launcher.spool
        self.ledger = Ledger(self.launcher.settings.database)
        self.bus = Bus(self.launcher.runtime, self.launcher.settings)
        self._senders: dict[str, Sender] = {}
        self._clients: dict[str, Client] = {}
        self._serial = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bus.close()
        self.ledger.close()
        self.launcher.__exit__(kind, error, trace)
        # The writing end of `alive` is closed now: shims end by themselves.
        wait_until(lambda: not self.processes(), f"the end of {self.processes()}")

    def supervisor_dies(self) -> None:
        """Close the pipe that only the supervisor holds; actors that are started from now on have another one."""
        launcher = self.launcher
        os.close(launcher._alive_writing)
        os.close(launcher._alive_reading)
        launcher._alive_reading, launcher._alive_writing = os.pipe2(os.O_CLOEXEC)

    # Decisions of others.

    def group(self, count: int = 3, size: int = 1000, **columns: object) -> int:
        """A closed group with instances on disk and on record."""
        self._serial += 1
        now = time.time_ns()
        group = Group.create(
            ae_title="AE",
            processor="aetitle",
            key_value=f"{STUDY}.{self._serial}",
            revision=0,
            state=GroupState.CLOSED,
            instances=count,
            last_wall_ns=now,
            last_boot_ns=0,
            boot="",
            opened_ns=now,
            closed_ns=now,
        )
        shard = f"20260101T000000-test_{self._serial:08x}-0001"
        (self.spool.instances / shard).mkdir()
        with self.ledger.transaction():
            for number in range(1, count + 1):
                self.instance(group.group_id, f"{shard}/a-{number:06d}", size, number, **columns)
        return int(group.group_id)

    def instance(self, group_id: int, identifier: str, size: int, number: int, **columns: object) -> None:
        """One instance; `columns` override its row."""
        path = self.spool.instance_path(identifier)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE), "wb") as file:
            file.write(number.to_bytes(4, "big") * (size // 4))
        row = {
            "identifier": identifier,
            "group_id": group_id,
            "state": InstanceState.GROUPED,
            "called_ae_title": "AE",
            "calling_ae_title": "SCU",
            "host": "127.0.0.1",
            "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
            "sop_instance_uid": f"{SERIES}.{number}",
            "transfer_syntax_uid": "1.2.840.10008.1.2.1",
            "study_uid": STUDY,
            "series_uid": SERIES,
            "patient_id": PATIENT,
            "size": size,
            "dataset_offset": 0,
            "stored_wall_ns": time.time_ns(),
            "stored_boot_ns": 0,
            "boot": "",
        }
        Instance.create(**{**row, **columns})

    def pipeline(self, *command: str, user: str = "", timeout_seconds: int = 60) -> str:
        """Register a command."""
        pipeline_id = str(uuid.uuid4())
        Pipeline.create(
            pipeline_id=pipeline_id,
            name=f"p-{pipeline_id}",
            command=list(command),
            user=user,
            timeout_seconds=timeout_seconds,
            created_ns=time.time_ns(),
        )
        return pipeline_id

    def shell(self, script: str, timeout_seconds: int = 60) -> str:
        """Register a shell script."""
        return self.pipeline("sh", "-c", script, timeout_seconds=timeout_seconds)

    def python(self, code: str, timeout_seconds: int = 60) -> str:
        """Register a piece of Python."""
        return self.pipeline(sys.executable, "-I", "-S", "-c", code, timeout_seconds=timeout_seconds)

    def job(self, group_id: int | None, pipeline_id: str, priority: str = "normal", **columns: object) -> str:
        """Decide on a job."""
        job_id = columns.pop("job_id", str(uuid.uuid4()))
        row = {
            "job_id": job_id,
            "group_id": group_id,
            "ae_title": "AE",
            "name": f"ae-test-{job_id}",
            "pipeline_id": pipeline_id,
            "priority": priority,
            "source": "AE (aetitle)",
            "instances": Instance.select().where(Instance.group_id == group_id).count(),
            "created_ns": time.time_ns(),
        }
        Job.create(**{**row, **columns})
        return str(job_id)

    # The bus.

    def tell_jobs(self, *job_ids: str) -> None:
        """Say that jobs were created, as the processor does."""
        if "jobs" not in self._senders:
            self._senders["jobs"] = self.bus.sender(channels.JOBS)
        message = messages.JobsCreated(job_ids=job_ids)
        # A sender drops what it cannot send while it connects.
        wait_until(lambda: self._senders["jobs"].send(message), "the submitter takes a message")

    def ask(self, channel: channels.Channel, command: messages.Message) -> messages.Message:
        """Ask an actor, as the API does."""
        if channel.name not in self._clients:
            self._clients[channel.name] = self.bus.client(channel)
        return self._clients[channel.name].ask(command, 30.0)

    def ask_platform(self, command: messages.Message) -> messages.Message:
        """Ask the platform."""
        return self.ask(channels.PLATFORM_COMMANDS, command)

    def ask_submitter(self, command: messages.Message) -> messages.Message:
        """Ask the submitter."""
        return self.ask(channels.SUBMITTER_COMMANDS, command)

    def start_run(self, pipeline_id: str, priority: str = "normal", files: int = 1) -> str:
        """Create and start a run, as the submitter does; returns the job's UUID."""
        job_id = self.create_run(pipeline_id, priority, files)
        self.ask_platform(messages.StartRun(run_id=self.run(job_id).run_id))
        return job_id

    def create_run(self, pipeline_id: str, priority: str = "normal", files: int = 1) -> str:
        """Create a run whose payload has files."""
        job_id = str(uuid.uuid4())
        answer = self.ask_platform(
            messages.CreateRun(job_id=job_id, name="n", pipeline_id=pipeline_id, priority=priority, metadata={})
        )
        assert isinstance(answer, messages.RunCreated)
        self.link_payload(self.group(files), answer.payload_directory)
        return job_id

    def link_payload(self, group_id: int, directory: str) -> None:
        """Put a group's files into a payload, as the submitter does."""
        for instance in Instance.select().where(Instance.group_id == group_id):
            target = Path(directory, payload_name(PATIENT, STUDY, SERIES, instance.sop_instance_uid))
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(self.spool.instance_path(instance.identifier), target)

    # What became of it.

    def run(self, job_id: str) -> Run:
        """The platform's row."""
        run: Run = Run.get(Run.job_id == job_id)
        return run

    def submission(self, job_id: str) -> Submission:
        """The submitter's row."""
        row: Submission = Submission.get(Submission.job_id == job_id)
        return row

    def wait_run(self, job_id: str, *states: RunState, seconds: float = 30.0) -> Run:
        """Wait until a run is in one of some states; any final one by default."""
        wanted = states or (RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELED)
        query = Run.select().where(Run.job_id == job_id, Run.state.in_(wanted))
        return wait_until(lambda: query.clone().first(), f"run {' or '.join(wanted)}", seconds)

    def wait_submission(self, job_id: str, *states: JobState, seconds: float = 30.0) -> Submission:
        """Wait until a submission is in one of some states."""
        query = Submission.select().where(Submission.job_id == job_id, Submission.state.in_(states))
        return wait_until(lambda: query.clone().first(), f"submission {' or '.join(states)}", seconds)

    def home(self, job_id: str) -> Path:
        """The run's directory."""
        return self.spool.platform / self.run(job_id).payload_id

    def output(self, job_id: str) -> Path:
        """The output of the run's latest try."""
        return self.home(job_id) / "runs" / str(self.run(job_id).tries) / "output"

    def wait_begun(self, job_id: str) -> None:
        """Wait until the pipeline has made its file `begun`."""

        def has_begun() -> bool:
            return (self.output(job_id) / "begun").exists()

        wait_until(has_begun, "the command")

    def log_of(self, job_id: str) -> bytes:
        """What the latest try said."""
        return (self.output(job_id).parent / "output.log").read_bytes()

    def processes(self) -> list[int]:
        """Living processes of runs, their shims included."""
        wanted, found = f"OUTPUT_DIR={self.spool.platform}".encode(), living_shims(self.spool)
        for entry in os.listdir("/proc"):
            with contextlib.suppress(OSError):
                if entry.isdigit() and wanted in Path(f"/proc/{entry}/environ").read_bytes():
                    found.append(int(entry))
        return found


def living_shims(spool: Spool) -> list[int]:
    """Process IDs of the shims of runs."""
    found = []
    for lock in spool.platform.glob("*/runs/*/shim.lock"):
        with contextlib.suppress(OSError, ValueError):
            pid = int(lock.read_bytes())
            if b"fork_server" in Path(f"/proc/{pid}/cmdline").read_bytes():  # it was forked, and executed nothing
                found.append(pid)
    return found
