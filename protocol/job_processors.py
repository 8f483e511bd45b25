"""What a job processor is, and how an installed one is found: the contract of plug-ins.

A job processor decides, for one AE title, which instances belong together and what jobs a closed group makes. The
API has it check settings; the processor actor has it work. It is a class behind an entry point of the group
`dicom_adapter.job_processors`; the entry point's name is what an AE title's `processor` says. Those that are not ours
run in processes of their own, see `protocol.plugins`.
"""

import importlib.metadata
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import msgspec

from protocol.errors import NotFoundError
from protocol.messages import DescribedInstance
from protocol.priority import PRIORITIES as PRIORITIES  # noqa: PLC0414 # part of this contract

ENTRY_POINT_GROUP = "dicom_adapter.job_processors"
DEFAULT = "aetitle"
_ALIASES = {
    "nvidia.clara.dicomadapter.server.processors.aetitlejobprocessor": DEFAULT,
}


class JobPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One job that a closed group makes.

    Args:
        label: the NAME part of the job's name; unique within the group.
        pipeline_id: the pipeline to run.
        priority: one of `PRIORITIES`.
    """

    label: str
    pipeline_id: str
    priority: str = "normal"


class JobProcessor(ABC):
    """The base of job processors; one object serves one AE title.

    Args:
        ae_title: the AE title.
        settings: its `processorSettings`, found valid by `validate`.
    """

    tags: tuple[str, ...] = ()
    """Elements, as GGGGEEEE, that `group_key` reads from `DescribedInstance.attributes`."""

    timeout_seconds: float = 5.0
    """How long a group must be quiet before it closes."""

    retry_delay_seconds: float = 5.0
    """The pause before making a group's jobs is tried again."""

    label: ClassVar[str] = ""
    """A short name, shown in brackets in a job's `Source`; empty is the class's name."""

    def __init__(self, ae_title: str, settings: Mapping[str, str]) -> None:
        self.ae_title = ae_title
        self.settings = dict(settings)

    @classmethod
    @abstractmethod
    def validate(cls, settings: Mapping[str, str]) -> Sequence[str]:
        """Everything that is wrong with settings, a sentence each; empty when they are valid."""

    @abstractmethod
    def group_key(self, instance: DescribedInstance) -> str:
        """What an instance is grouped by; "" when it has no value, and so is quarantined."""

    @abstractmethod
    def plan(self, group_key: str, instances: Sequence[DescribedInstance]) -> Sequence[JobPlan]:
        """The jobs of a group that closes."""


def find(name: str) -> importlib.metadata.EntryPoint:
    """What is installed under a processor's name, or under its .NET name in the original; nothing of it runs.

    Raises:
        NotFoundError: no installed package offers it; the sentence lists what there is.
    """
    wanted = _ALIASES.get(name.partition(",")[0].strip().lower(), name.strip().lower()) or DEFAULT
    offered = sorted(importlib.metadata.entry_points(group=ENTRY_POINT_GROUP), key=is_own)
    installed = {point.name.lower(): point for point in offered}  # nobody takes a name of ours
    if wanted not in installed:
        known = ", ".join(sorted(installed)) or "none"
        raise NotFoundError(f"the job processor {name!r} is not installed: installed are {known}")
    return installed[wanted]


def is_own(point: importlib.metadata.EntryPoint) -> bool:
    """Whether a job processor is part of this program, and so trusted in its processes."""
    return point.value.startswith("actors.")


def load(name: str) -> type[JobProcessor]:
    """The class behind a processor's name; importing it runs its code.

    Raises:
        NotFoundError: as `find`.
    """
    found: type[JobProcessor] = find(name).load()
    return found
