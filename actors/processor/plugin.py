"""The one place where job processors are called, so that what a foreign one does wrong stays here."""

from collections.abc import Mapping, Sequence

import msgspec

from protocol.errors import AdapterError
from protocol.job_processors import PRIORITIES, JobPlan, JobProcessor, load
from protocol.messages import DescribedInstance


class PluginError(AdapterError):
    """A job processor is not there, refuses its settings, or failed; the sentence names it and no patient."""


class Plugin:
    """A job processor that serves one AE title.

    Args:
        name: the processor's name, as the AE title gives it.
        ae_title: the AE title.
        settings: its processor settings.

    Raises:
        PluginError: it is not installed, or cannot be made with these settings.
    """

    def __init__(self, name: str, ae_title: str, settings: Mapping[str, str]) -> None:
        self._name = name
        self._processor = self._make(ae_title, settings)
        self.tags = self._processor.tags
        self.timeout_seconds = float(self._processor.timeout_seconds)
        self.retry_delay_seconds = float(self._processor.retry_delay_seconds)
        self.label = self._processor.label or type(self._processor).__name__

    def _make(self, ae_title: str, settings: Mapping[str, str]) -> JobProcessor:
        try:
            offered = load(self._name)
            problems = list(offered.validate(settings))
            if not problems:
                return offered(ae_title, settings)
        except AdapterError as error:
            raise PluginError(str(error)) from error
        except Exception as error:
            raise self._failed("cannot be loaded", error) from error
        raise PluginError("; ".join(problems))

    def group_key(self, instance: DescribedInstance) -> str:
        """What an instance is grouped by, "" when it has no value.

        Raises:
            PluginError: the job processor failed.
        """
        try:
            key = self._processor.group_key(instance)
        except Exception as error:
            raise self._failed("failed to group an instance", error) from error
        if not isinstance(key, str):
            raise PluginError(f"the job processor {self._name!r} grouped by something that is no text")
        return key

    def plan(self, group_key: str, instances: Sequence[DescribedInstance]) -> tuple[JobPlan, ...]:
        """The jobs of a group that closes.

        Raises:
            PluginError: the job processor failed, or planned what cannot be.
        """
        try:
            plans = msgspec.convert(
                [msgspec.to_builtins(plan) for plan in self._processor.plan(group_key, instances)],
                tuple[JobPlan, ...],
            )
        except Exception as error:
            raise self._failed("failed to plan the jobs of a group", error) from error
        for plan in plans:
            if plan.priority not in PRIORITIES:
                raise PluginError(f"the job processor {self._name!r} planned a job of unknown priority")
        return plans

    def _failed(self, what: str, error: Exception) -> PluginError:
        """The error's own text may quote the instance, so only its type is told."""
        return PluginError(f"the job processor {self._name!r} {what} ({type(error).__name__})")
