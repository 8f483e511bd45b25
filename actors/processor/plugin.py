"""The one place where job processors are called: ours here, others by `foreign`, in host processes of their own."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

from actors.processor.groups import OpenGroup
from actors.processor.members import Members
from protocol.errors import AdapterError
from protocol.job_processors import PRIORITIES, JobPlan, JobProcessor, load
from protocol.messages import DescribedInstance
from protocol.plugins import limits


class PluginError(AdapterError):
    """A job processor is not there, refuses its settings, or failed; the sentence names it and no patient.

    Args:
        reason: the sentence.
        pause_seconds: how long at least the same must not be tried again.
    """

    def __init__(self, reason: str, pause_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.pause_seconds = pause_seconds


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What a job processor that thinks elsewhere said of an instance: a key, or why it has none.

    Args:
        plugin: who said it; with another one, it does not count.
        key: what the instance is grouped by.
        problem: why it cannot be grouped.
    """

    plugin: Plugin
    key: str = ""
    problem: str = ""


class Plugin(ABC):
    """A job processor that serves one AE title.

    Args:
        name: the processor's name, as the AE title gives it.
    """

    tags: tuple[str, ...] | None = None
    """The elements that it groups by; None while that is not known."""

    timeout_seconds = JobProcessor.timeout_seconds
    retry_delay_seconds = JobProcessor.retry_delay_seconds
    label = ""

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def group_key(self, instance: DescribedInstance, answer: Answer | None) -> str | None:
        """What an instance is grouped by, "" when it has no value; None when it is to be asked first (`ask_key`).

        Args:
            instance: the instance, with `tags` read.
            answer: what was said when it was asked.

        Raises:
            PluginError: the job processor failed.
        """

    @abstractmethod
    def plan(self, group: OpenGroup, members: Members) -> tuple[JobPlan, ...] | None:
        """The jobs of a group that closes; None when that is not known yet, and will be told.

        Raises:
            PluginError: the job processor failed, or planned what cannot be.
        """

    @property
    def full(self) -> bool:
        """Whether so many instances wait for it that no more should be described."""
        return False

    @property
    def waiting(self) -> int:
        """How many instances wait for it."""
        return 0

    def ask_key(self, instance: DescribedInstance, done: Callable[[Answer | None], None]) -> None:  # noqa: ARG002
        """Ask for an instance's key; `done` is called with the answer, or with None when `group_key` knows better."""
        done(None)

    def prepare(self) -> None:  # noqa: B027 - ours are ready
        """It will be needed soon."""

    def close(self) -> None:  # noqa: B027 - ours have nothing to end
        """It is not used any more."""


class OwnPlugin(Plugin):
    """A job processor of this program: it is trusted, and called directly.

    Args:
        name: as `Plugin`.
        ae_title: the AE title.
        settings: its processor settings.

    Raises:
        PluginError: it cannot be made with these settings.
    """

    def __init__(self, name: str, ae_title: str, settings: Mapping[str, str]) -> None:
        super().__init__(name)
        self._processor = self._make(ae_title, settings)
        self.tags = tuple(tag.upper() for tag in self._processor.tags)
        self.timeout_seconds = self._processor.timeout_seconds
        self.retry_delay_seconds = self._processor.retry_delay_seconds
        self.label = self._processor.label

    def group_key(self, instance: DescribedInstance, answer: Answer | None) -> str:  # noqa: ARG002
        """Answers at once."""
        try:
            return self._processor.group_key(instance)
        except Exception as error:
            raise PluginError(failed_to_group(self.name, type(error).__name__)) from error

    def plan(self, group: OpenGroup, members: Members) -> tuple[JobPlan, ...]:
        """Answers at once."""
        try:
            plans = tuple(self._processor.plan(group.key, members))
        except Exception as error:
            raise PluginError(failed_to_plan(self.name, type(error).__name__)) from error
        return checked(self.name, plans)

    def _make(self, ae_title: str, settings: Mapping[str, str]) -> JobProcessor:
        try:
            offered = load(self.name)
            problems = list(offered.validate(settings))
            if not problems:
                return offered(ae_title, settings)
        except Exception as error:
            raise PluginError(f"the job processor {self.name!r} cannot be loaded ({type(error).__name__})") from error
        raise PluginError("; ".join(problems))


def failed_to_group(name: str, error: str) -> str:
    """The sentence; the error's own words may quote the instance, so only its type is told."""
    return f"the job processor {name!r} failed to group an instance ({error})"


def failed_to_plan(name: str, error: str) -> str:
    """The sentence, see `failed_to_group`."""
    return f"the job processor {name!r} failed to plan the jobs of a group ({error})"


def checked(name: str, plans: Sequence[JobPlan]) -> tuple[JobPlan, ...]:
    """Plans that the ledger can take.

    Raises:
        PluginError: one is none.
    """
    for plan in plans:
        if plan.priority not in PRIORITIES:
            raise PluginError(f"the job processor {name!r} planned a job of unknown priority")
        for text in (plan.label, plan.pipeline_id):
            if not text.isprintable() or len(text) > limits.LONGEST_TEXT:
                raise PluginError(
                    f"the job processor {name!r} planned a job whose label or pipeline is not of at most "
                    f"{limits.LONGEST_TEXT} printable characters"
                )
    return tuple(plans)
