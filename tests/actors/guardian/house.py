"""A spool and a ledger with groups, as the other processes leave them."""

import os
import time
from pathlib import Path

from actors.guardian.reclaim import Freed, Reclaimer
from protocol.ledger import Group, Instance, InstanceHistory, Job, Ledger, Run, Submission
from protocol.spool import ShardWriter, Spool, new_association_id
from protocol.states import GroupState, InstanceState, JobState, RunState

HOUR_NS = 3600 * 10**9
SIZE = 100
_TEXTS = (
    "called_ae_title",
    "calling_ae_title",
    "host",
    "sop_class_uid",
    "sop_instance_uid",
    "boot",
    "transfer_syntax_uid",
    "study_uid",
    "series_uid",
    "patient_id",
)


class House:
    """Makes what stands in it by hand.

    Args:
        directory: of the test.
        ledger: name of the ledger's file.
    """

    def __init__(self, directory: Path, ledger: str = "ledger.db") -> None:
        self.spool = Spool(directory / "spool")
        self.spool.create()
        self.ledger = Ledger(f"sqlite:///{directory / ledger}")
        self.writer = ShardWriter(self.spool, "receiver")
        self.failures: list[OSError] = []
        self._groups = 0

    def reclaim(self) -> Freed:
        """One round."""
        reclaimer = Reclaimer(self.ledger, self.spool, 60, self.failures.append)
        return sum(reclaimer.steps(), Freed())

    def file(self) -> str:
        """An instance on disk that no table knows; returns its identifier."""
        part = self.writer.open_part(new_association_id(), 1)
        Path(part.path).chmod(0o640)
        Path(part.path).write_bytes(b"x" * SIZE)
        self.writer.publish([part])
        return part.identifier

    def store(self, group: int | None, state: InstanceState = InstanceState.GROUPED) -> str:
        """An instance on disk and on record."""
        identifier = self.file()
        Instance.insert(**self._columns(identifier, group, state)).execute()
        return identifier

    def past(self, group: int | None) -> str:
        """An instance that is still on disk although its row is in the history."""
        identifier = self.file()
        columns = self._columns(identifier, group, InstanceState.GROUPED)
        InstanceHistory.insert(**columns, reclaimed_ns=0).execute()
        return identifier

    def group(self, *jobs: JobState | None, run: RunState | None = None, closed_ago_ns: int = HOUR_NS) -> int:
        """A closed group with a job for each state.

        Args:
            jobs: how far each is; None is one that no submission took over yet.
            run: of each job on the embedded platform; None when there is none.
            closed_ago_ns: when the group was closed.
        """
        self._groups += 1
        group = Group.create(
            ae_title="A",
            processor="aetitle",
            key_value=str(self._groups),
            revision=0,
            state=GroupState.CLOSED,
            last_wall_ns=0,
            last_boot_ns=0,
            boot="",
            opened_ns=0,
            closed_ns=time.time_ns() - closed_ago_ns,
        ).group_id
        for number, state in enumerate(jobs):
            job = f"{group}-{number}"
            Job.create(
                job_id=job,
                group_id=group,
                ae_title="A",
                name=job,
                pipeline_id="p",
                priority="normal",
                source="A",
                instances=1,
                created_ns=0,
            )
            if state is not None:
                Submission.create(job_id=job, state=state, created_ns=0, updated_ns=0)
            if run is not None:
                self.run(job, run)
        return int(group)

    def run(self, job: str, state: RunState) -> Path:
        """A run with a directory; returns it."""
        payload = f"payload-{job}"
        Run.create(
            run_id=job,
            job_id=job,
            payload_id=payload,
            name=job,
            pipeline_id="p",
            priority="normal",
            state=state,
            created_ns=0,
        )
        return self.payload(payload)

    def payload(self, name: str, *instances: str) -> Path:
        """A directory of a payload with links to instances; returns it."""
        home = self.spool.platform / name
        directory = home / "payload" / "dcm" / "PAT"
        directory.mkdir(parents=True)
        for number, identifier in enumerate(instances):
            os.link(self.spool.instance_path(identifier), directory / f"{number}.dcm")
        return home

    def holds(self, identifier: str) -> bool:
        """Whether an instance is on disk."""
        return Path(self.spool.instance_path(identifier)).exists()

    @staticmethod
    def _columns(identifier: str, group: int | None, state: InstanceState) -> dict[str, object]:
        own = {"identifier": identifier, "group_id": group, "state": state, "size": SIZE}
        return {**own, "dataset_offset": 0, "stored_wall_ns": 0, "stored_boot_ns": 0, **dict.fromkeys(_TEXTS, "x")}
