"""Makes the jobs of groups that close, in the transaction that closes them, and tells the submitter."""

import time
import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime

from actors.processor.groups import OpenGroup
from actors.processor.members import Members
from actors.processor.plugin import Plugin, PluginError
from actors.processor.registry import Registry
from protocol import killpoints
from protocol.clock import NANOSECONDS, Moment
from protocol.job_processors import JobPlan
from protocol.ledger import Group, Job, Ledger, Submission, tuples
from protocol.logs import EventLogger
from protocol.messages import JobsCreated, Message
from protocol.naming import JobNames
from protocol.states import GroupState, advance

_TELL_AT_ONCE = 500
_TELL_AGAIN_SECONDS = 3.0
_UNUSABLE_SECONDS = 5.0  # the pause when there is no job processor that could say


class JobMaker:
    """Closes groups.

    Args:
        ledger: the ledger.
        registry: the AE titles.
        log: of the actor.
    """

    def __init__(self, ledger: Ledger, registry: Registry, log: EventLogger) -> None:
        self._ledger = ledger
        self._registry = registry
        self._log = log
        self._names = JobNames(_taken)

    def close(
        self,
        groups: Sequence[OpenGroup],
        now: Moment,
        *,
        failed: Callable[[OpenGroup, float], None],
        waits: Callable[[OpenGroup], None],
    ) -> tuple[list[OpenGroup], list[str]]:
        """Close groups and make their jobs, all in one transaction.

        Args:
            groups: what closes.
            now: this moment.
            failed: called with a group whose job processor failed, and the seconds until it may be tried again.
            waits: called with a group whose job processor will tell its jobs later.

        Returns:
            The groups that are closed, and the identifiers of their jobs.

        Raises:
            peewee.PeeweeException: none was closed, or it is not known whether they were.
        """
        planned: list[tuple[OpenGroup, Plugin, tuple[JobPlan, ...]]] = []
        for group in groups:
            service = self._registry.service(group.ae_title)
            pause = service.plugin.retry_delay_seconds if service and service.plugin else _UNUSABLE_SECONDS
            try:
                if service is None or service.plugin is None:
                    raise PluginError(service.problem if service else "its AE title is not configured any more")
                plans = service.plugin.plan(group, Members(group))
            except PluginError as error:
                self._log.error("group_not_closed", group=group.group_id, ae_title=group.ae_title, reason=str(error))
                failed(group, max(pause, error.pause_seconds))
            else:
                if plans is None:
                    waits(group)
                else:
                    planned.append((group, service.plugin, plans))
        jobs: list[tuple[object, ...]] = []
        if planned:
            killpoints.reach("processor.jobs-planned")
            state = advance(GroupState.OPEN, GroupState.CLOSED)
            with self._ledger.transaction():
                Group.update(state=state, closed_ns=now.wall_ns).where(
                    Group.group_id.in_([group.group_id for group, _, _ in planned])
                ).execute()
                jobs = [self._job(group, plugin, plan, now) for group, plugin, plans in planned for plan in plans]
                self._ledger.insert_rows(Job, jobs)
            killpoints.reach("processor.group-closed")
        for group, _, plans in planned:
            self._log.info(
                "group_closed",
                group=group.group_id,
                ae_title=group.ae_title,
                revision=group.revision,
                instances=group.instances,
                jobs=len(plans),
            )
        return [group for group, _, _ in planned], [str(job[0]) for job in jobs]

    def _job(self, group: OpenGroup, plugin: Plugin, plan: JobPlan, now: Moment) -> tuple[object, ...]:
        """A job's row, all columns in their order."""
        moment = datetime.fromtimestamp(now.wall_ns / NANOSECONDS, tz=UTC)
        return (
            str(uuid.uuid4()),
            group.group_id,
            group.ae_title,
            self._names.new(group.ae_title, plan.label, moment),
            plan.pipeline_id,
            plan.priority,
            f"{group.ae_title} ({plugin.label})",
            group.instances,
            now.wall_ns,
        )


class Announcer:
    """Tells the submitter of jobs, and again of those that it has not taken over.

    Args:
        send: sends a message to the submitter; False when nobody takes it.
    """

    def __init__(self, send: Callable[[Message], bool]) -> None:
        self._send = send
        self._untaken: dict[str, float] = {}

    def load(self) -> None:
        """Find the jobs that no submission took over before this start.

        Raises:
            peewee.PeeweeException: the ledger does not answer.
        """
        taken = Submission.select(Submission.job_id)
        self._untaken |= {row[0]: 0.0 for row in tuples(Job.select(Job.job_id).where(Job.job_id.not_in(taken)))}

    def announce(self, job_ids: Iterable[str]) -> None:
        """Jobs stand in the ledger."""
        waiting = list(job_ids)
        for start in range(0, len(waiting), _TELL_AT_ONCE):
            some = tuple(waiting[start : start + _TELL_AT_ONCE])
            told = time.monotonic() if self._send(JobsCreated(job_ids=some)) else 0.0
            self._untaken.update(dict.fromkeys(some, told))

    def sweep(self) -> None:
        """Announce again what was announced some seconds ago and not taken over.

        Raises:
            peewee.PeeweeException: the ledger does not answer.
        """
        late = time.monotonic() - _TELL_AGAIN_SECONDS
        waiting = [job_id for job_id, told in self._untaken.items() if told < late]
        for start in range(0, len(waiting), _TELL_AT_ONCE):
            some = waiting[start : start + _TELL_AT_ONCE]
            taken = {row[0] for row in tuples(Submission.select(Submission.job_id).where(Submission.job_id.in_(some)))}
            for job_id in taken:
                del self._untaken[job_id]
            self.announce(job_id for job_id in some if job_id not in taken)


def _taken(names: Sequence[str]) -> Collection[str]:
    return {row[0] for row in tuples(Job.select(Job.name).where(Job.name.in_(names)))}
