"""The world around a processor: a real spool and ledger, and a test that plays receiver, extractor and submitter."""

import struct
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from protocol import channels, messages
from protocol.bus import Bus
from protocol.clock import now
from protocol.ledger import AeTitle, Group, Instance, Job, Ledger, Submission, tuples
from protocol.messages import DescribedInstance, DescribeInstances, InstancesDescribed, JobsCreated, StoredInstance
from protocol.spool import Part, ShardWriter, new_association_id, sync_file
from tests import plug_ins
from tests.actors.launcher import PATIENCE_SECONDS, Launcher, RunningActor, wait_until

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT_VR = "1.2.840.10008.1.2.1"
STUDY, PATIENT = "0020000D", "00100020"

# The built-in processor waits at least five seconds, which tests do not have. This one is another package's, and so it
# runs in a process of its own.
_QUICK = """
from pathlib import Path

from actors.processor.aetitle import AeTitleJobProcessor
from protocol.job_processors import JobProcessor


class Quick(AeTitleJobProcessor):
    def __init__(self, ae_title, settings):
        super().__init__(ae_title, settings)
        self.timeout_seconds = float(settings["seconds"])
        self.retry_delay_seconds = 0.2

    @classmethod
    def validate(cls, settings):
        return AeTitleJobProcessor.validate(
            {k: v for k, v in settings.items() if k not in ("seconds", "fails", "loops")}
        )

    def group_key(self, instance):
        while Path(self.settings.get("loops", "/nonexistent")).exists():
            pass
        return super().group_key(instance)

    def plan(self, group_key, instances):
        if Path(self.settings.get("fails", "/nonexistent")).exists():
            raise RuntimeError(group_key)
        assert len(list(instances)) == len(instances)
        return super().plan(group_key, instances)
"""


def element(group: int, number: int, vr: str, text: str) -> bytes:
    """An element with explicit VR, little endian (PS3.5 §7.1.2)."""
    value = text.encode()
    value += (b"\0" if vr == "UI" else b" ") * (len(value) % 2)
    return struct.pack("<HH2sH", group, number, vr.encode(), len(value)) + value


def file_meta(called: str, calling: str, sop_instance_uid: str) -> bytes:
    """Preamble, prefix and file meta group of an instance, as the receiver writes them."""
    elements = b"".join(
        (
            element(2, 2, "UI", CT),
            element(2, 3, "UI", sop_instance_uid),
            element(2, 16, "UI", EXPLICIT_VR),
            element(2, 0x17, "AE", calling),
            element(2, 0x18, "AE", called),
        )
    )
    return bytes(128) + b"DICM" + struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(elements)) + elements


class Association:
    """Objects that come on one association; the test decides what becomes of each.

    Args:
        world: where.
        called: the called AE title.
    """

    def __init__(self, world: "World", called: str) -> None:
        self._world = world
        self.called = called
        self.name = new_association_id()
        self.position = 0

    def begin(self) -> Part:
        """An object is in transit."""
        self.position += 1
        return self._world.writer.open_part(self.name, self.position)

    def store(
        self, study: str, sop: str = "", *, patient: str = "PAT-1", data: bytes = b"", part: Part | None = None
    ) -> DescribedInstance:
        """Store an object as a receiver does; returns what an extractor would say of it."""
        sop = sop or f"{study}.{self.name}.{self.position + 1}"
        part = part or self.begin()
        meta = file_meta(self.called, "MODALITY", sop)
        content = meta + (data or sop.encode())
        with open(part.fd, "wb", closefd=False) as file:
            file.write(content)
        sync_file(part.fd)
        self._world.writer.publish([part])
        return DescribedInstance(
            identifier=part.identifier,
            stored=now(),
            size=len(content),
            dataset_offset=len(meta),
            called_ae_title=self.called,
            calling_ae_title="MODALITY",
            host="127.0.0.1",
            sop_class_uid=CT,
            sop_instance_uid=sop,
            transfer_syntax_uid=EXPLICIT_VR,
            study_uid=study,
            series_uid=f"{study}.1",
            patient_id=patient,
            attributes={STUDY: study, PATIENT: patient},
        )


class World:
    """Everything around the processor.

    Args:
        directory: of the test.
        sets: settings as for `--set`.
    """

    def __init__(self, directory: Path, *sets: str) -> None:
        environment = plug_ins.install(directory / "quick_processors", _QUICK, quick="Quick")
        self.sets = ("DicomAdapter.dicom.scp.receivers=1", *sets)
        self.launcher = Launcher(directory, *self.sets, environment=environment)
        self.spool = self.launcher.spool
        self.ledger = Ledger(self.launcher.settings.database)
        self.writer = ShardWriter(self.spool, "receiver")
        self.bus = Bus(self.launcher.runtime, self.launcher.settings)
        self.extractor = self.bus.receiver(channels.INSTANCES, "extractor-1")
        self.submitter = self.bus.receiver(channels.JOBS, "submitter")
        self._descriptions = self.bus.sender(channels.DESCRIPTIONS)
        self._commands = self.bus.client(channels.PROCESSOR_COMMANDS)

    def __enter__(self) -> Self:
        self.launcher.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bus.close()
        self.writer.close()
        self.ledger.close()
        self.launcher.__exit__(kind, error, trace)

    def start(self) -> RunningActor:
        """Start the processor."""
        return self.launcher.start("processor")

    def new_writer(self) -> None:
        """A receiver was replaced: what comes goes to another shard."""
        self.writer = ShardWriter(self.spool, "receiver")

    def lose_ledger(self) -> None:
        """The ledger is gone; a new, empty one takes its place."""
        self.ledger.close()
        path = self.ledger.path
        assert path
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        self.ledger = Ledger(self.launcher.settings.database)

    def add_ae_title(self, ae_title: str, seconds: float = 1.0, *, overwrite: bool = False, **settings: str) -> None:
        """Configure an AE title with the quick processor; `pipeline_X` is the setting `pipeline-X`."""
        values = {"seconds": str(seconds), **{name.replace("_", "-"): value for name, value in settings.items()}}
        if not any(name.startswith("pipeline-") for name in values):
            values["pipeline-p"] = "pipeline-id"
        row = {
            "ae_title": ae_title,
            "overwrite_same_instance": overwrite,
            "processor": "quick",
            "processor_settings": values,
            "updated_ns": time.time_ns(),
        }
        AeTitle.insert(name=ae_title, created_ns=1, **row).on_conflict(
            conflict_target=[AeTitle.name], update=row
        ).execute()

    def describe(self, *instances: DescribedInstance, lenient: bool = False) -> None:
        """Tell the processor, as an extractor does; waits until a processor takes it."""
        message = InstancesDescribed(instances=instances, lenient=lenient)
        wait_until(lambda: self._descriptions.send(message), "a processor that takes descriptions")

    def command(self, message: messages.Message) -> messages.Message:
        """Command the processor, as the API does."""
        return self._commands.ask(message, PATIENCE_SECONDS)

    def asked(self, identifiers: Iterable[str], *, lenient: bool = False) -> list[StoredInstance]:
        """Wait until the processor has asked for all of these; returns what it asked."""
        missing = set(identifiers)
        found: list[StoredInstance] = []

        def all_asked() -> bool:
            while (message := self.extractor.receive()) is not None:
                assert isinstance(message, DescribeInstances)
                if message.lenient == lenient:
                    found.extend(each for each in message.instances if each.identifier in missing)
                    missing.difference_update(each.identifier for each in message.instances)
            return not missing

        wait_until(all_asked, "the processor asks for descriptions")
        return found

    def announced(self, jobs: int, seconds: float = PATIENCE_SECONDS) -> set[str]:
        """Wait until so many jobs were announced; returns their identifiers."""
        found: set[str] = set()

        def all_announced() -> bool:
            while (message := self.submitter.receive()) is not None:
                assert isinstance(message, JobsCreated)
                found.update(message.job_ids)
            return len(found) >= jobs

        wait_until(all_announced, f"{jobs} jobs", seconds)
        return found

    def take_over(self, job_ids: Iterable[str]) -> None:
        """Take jobs over, as the submitter does."""
        for job_id in job_ids:
            Submission.insert(job_id=job_id, created_ns=1, updated_ns=1).execute()

    def wait_recorded(self, *instances: DescribedInstance, state: str = "") -> None:
        """Wait until instances are on record (in a state)."""
        identifiers = [each.identifier for each in instances]
        wait_until(
            lambda: all(found and state in ("", found) for found in map(self.states().get, identifiers)),
            f"{len(identifiers)} instances on record {state}",
        )

    def states(self) -> dict[str, str]:
        """The states of all instances on record."""
        return dict(tuples(Instance.select(Instance.identifier, Instance.state)))

    def members(self) -> list[set[str]]:
        """The identifiers of the Grouped instances of each group, in the order of the groups."""
        groups: dict[int, set[str]] = {row[0]: set() for row in tuples(Group.select(Group.group_id))}
        query = Instance.select(Instance.group_id, Instance.identifier).where(Instance.state == "Grouped")
        for group_id, identifier in tuples(query):
            groups[group_id].add(identifier)
        return [groups[group_id] for group_id in sorted(groups)]

    def jobs(self) -> list[dict[str, Any]]:
        """All jobs as dictionaries."""
        return list(Job.select().order_by(Job.created_ns, Job.name).dicts())

    def groups(self) -> list[dict[str, Any]]:
        """All groups as dictionaries."""
        return list(Group.select().order_by(Group.group_id).dicts())


def let_pass(seconds: float) -> None:
    """Let time pass in which something must not happen."""
    end = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > end, "time passes")
