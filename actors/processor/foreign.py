"""A job processor of another package: asked in a host process, and never waited for.

It may hang, crash, or eat memory. Then its host is ended and started again after a growing pause; its AE title waits,
and nothing else does. Instances wait here, outside of what is being recorded, and come again with their answer.
"""

import dataclasses
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Mapping

import peewee as pw

from actors.processor.groups import OpenGroup
from actors.processor.hosting import Hosted, Loop, Timed
from actors.processor.members import Members
from actors.processor.plugin import Answer, Plugin, PluginError, checked, failed_to_group, failed_to_plan
from protocol.job_processors import JobPlan
from protocol.logs import EventLogger
from protocol.messages import DescribedInstance, Message
from protocol.plugins import calls, limits

BATCH = 500
MOST_WAITING = 10_000
"""Instances of one AE title that wait here; the others stay on disk, and are asked for later."""
STRIKES = 3
"""An instance is given up when the host failed so often with it alone, and answered for others since."""
LONE_STRIKES = 10
"""The same when it answered for none, so that it is probably no instance's fault."""
IDLE_SECONDS = 300.0
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PLAN_PAUSE_SECONDS = 600.0
_DOUBLINGS = 10


@dataclasses.dataclass(slots=True)
class _Asked:
    """An instance that waits for its key.

    Args:
        instance, done: as `ForeignPlugin.ask_key`.
        strikes: how often the host failed with it alone.
        keys_before: how many keys were known when the host first failed with it.
    """

    instance: DescribedInstance
    done: Callable[[Answer | None], None]
    strikes: int = 0
    keys_before: int | None = None


@dataclasses.dataclass(slots=True)
class _Planning:
    """The jobs of a group as it was when it was to close."""

    group: OpenGroup
    members: Members
    outcome: tuple[JobPlan, ...] | PluginError | None = None
    pages: Iterator[list[DescribedInstance]] | None = None


class _Loading:
    """The host starts."""


@dataclasses.dataclass(frozen=True, slots=True)
class Surroundings:
    """What a job processor of another package needs here.

    Args:
        loop: the actor.
        log: of the actor.
        loaded: called with the AE title when it is known what its job processor says of itself.
        planned: called with a group when its jobs are planned, or cannot be.
    """

    loop: Loop
    log: EventLogger
    loaded: Callable[[str], None]
    planned: Callable[[OpenGroup], None]


class ForeignPlugin(Plugin):
    """A job processor in a host.

    Args:
        name, ae_title, settings: as `OwnPlugin`.
        around: see `Surroundings`.
    """

    def __init__(self, name: str, ae_title: str, settings: Mapping[str, str], around: Surroundings) -> None:
        super().__init__(name)
        self._ae_title = ae_title
        self._settings = dict(settings)
        self._around = around
        self._host: Hosted | None = None
        self._under_way: _Loading | list[_Asked] | _Planning | None = None
        self._together: deque[_Asked] = deque()
        self._alone: deque[_Asked] = deque()
        self._plannings: dict[int, _Planning] = {}
        self._failed_plans: dict[int, int] = {}
        self._turns = itertools.cycle((self._ask_plan, self._ask_together, self._ask_alone))
        self._is_wanted = False
        self._failures = 0
        self._keys = 0
        self._pause: Timed | None = None
        self._idle: Timed | None = None
        self._closed = False
        self._told_trace = ""

    # What the processor calls.

    def group_key(self, instance: DescribedInstance, answer: Answer | None) -> str | None:  # noqa: ARG002
        """Known when it was asked."""
        if answer is None or answer.plugin is not self:
            return None
        if answer.problem:
            raise PluginError(answer.problem)
        return answer.key

    @property
    def waiting(self) -> int:
        """How many instances wait for it."""
        under_way = len(self._under_way) if isinstance(self._under_way, list) else 0
        return len(self._together) + len(self._alone) + under_way

    @property
    def full(self) -> bool:
        """Whether as many wait as may."""
        return self.waiting >= MOST_WAITING

    def ask_key(self, instance: DescribedInstance, done: Callable[[Answer | None], None]) -> None:
        """Have an instance wait for its turn."""
        self._together.append(_Asked(instance, done))
        self._go_on()

    def plan(self, group: OpenGroup, members: Members) -> tuple[JobPlan, ...] | None:
        """Known when it was asked and the group has not changed since."""
        planning = self._plannings.get(group.group_id)
        if planning is not None and planning.group is group and planning.outcome is not None:
            del self._plannings[group.group_id]
            if isinstance(planning.outcome, PluginError):
                raise planning.outcome
            return planning.outcome
        if self.tags is not None and (planning is None or planning.group is not group):
            self._plannings[group.group_id] = _Planning(group, members)
        self.prepare()
        return None

    def prepare(self) -> None:
        """Start the host."""
        self._is_wanted = True
        self._go_on()

    def close(self) -> None:
        """End the host; what waits comes again, for the job processor that takes its place."""
        self._closed = True
        for timer in (self._pause, self._idle):
            if timer is not None:
                timer.cancel()
        if self._host is not None:
            self._host.close()
        self._plannings.clear()
        self._release([*(self._under_way if isinstance(self._under_way, list) else ()), *self._together, *self._alone])

    # Turns.

    def _go_on(self) -> None:
        """Start the next request, unless one is under way or it is too early."""
        if self._closed or self._pause is not None or self._under_way is not None:
            return
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if self._host is None:
            if self._is_wanted or self._together or self._alone:
                self._start()
        elif not any(next(self._turns)() for _ in range(3)):
            self._is_wanted = False
            self._idle = self._around.loop.after(IDLE_SECONDS, self._rest)

    def _start(self) -> None:
        self._under_way = _Loading()
        load = calls.Load(name=self.name, ae_title=self._ae_title, settings=self._settings)
        try:
            self._host = Hosted(load, self._around.loop, self._around.log, heard=self._hear, failed=self._fail)
        except OSError as error:
            self._fail(f"its process cannot be started ({error.strerror})")

    def _rest(self) -> None:
        """Nothing to do for a while."""
        self._idle = None
        self._end_host()

    def _ask_plan(self) -> bool:
        planning = next((each for each in self._plannings.values() if each.outcome is None), None)
        if planning is None:
            return False
        request = calls.PlanJobs(group_key=planning.group.key, count=planning.group.instances)
        return self._ask(planning, request, limits.PLAN_SECONDS)

    def _ask_together(self) -> bool:
        return self._ask_keys([self._together.popleft() for _ in range(min(BATCH, len(self._together)))])

    def _ask_alone(self) -> bool:
        """One of those that were under way when the host failed: maybe it is the one with which it does."""
        return self._ask_keys([self._alone.popleft()] if self._alone else [])

    def _ask_keys(self, asked: list[_Asked]) -> bool:
        if not asked:
            return False
        request = calls.GroupInstances(instances=tuple(each.instance for each in asked))
        return self._ask(asked, request, limits.KEYS_SECONDS)

    def _ask(self, work: list[_Asked] | _Planning, request: Message, seconds: float) -> bool:
        assert self._host is not None
        self._under_way = work
        self._host.ask(request, seconds)
        return True

    # Answers.

    def _hear(self, message: Message) -> None:
        assert self._host is not None
        match self._under_way, message:
            case _Loading(), calls.Loaded():
                self._loaded(message)
            case _Loading(), calls.Rejected():
                self._fail("; ".join(message.problems))
            case _Loading(), calls.Raised():
                self._fail(f"it cannot be loaded ({message.error})", message.trace)
            case list() as asked, calls.Grouped() if 0 < len(message.keys) <= len(asked):
                self._grouped(asked, message)
            case _Planning() as planning, calls.MembersWanted():
                self._send_members(planning)
            case _Planning() as planning, calls.Planned():
                try:
                    self._planned(planning, checked(self.name, message.plans))
                except PluginError as error:
                    self._planned(planning, error)
            case _Planning() as planning, calls.Raised():
                self._tell("plan", message.error, message.trace)
                self._planned(planning, PluginError(failed_to_plan(self.name, message.error)))
            case _:
                self._fail("it answered what was not asked")

    def _loaded(self, loaded: calls.Loaded) -> None:
        self._answered()
        said = (self.tags, self.timeout_seconds, self.retry_delay_seconds, self.label)
        self.tags, self.label = loaded.tags, loaded.label
        self.timeout_seconds, self.retry_delay_seconds = loaded.timeout_seconds, loaded.retry_delay_seconds
        if said[0] != self.tags:
            # Perhaps those that wait must be described again, with the elements that it needs.
            waiting = [*self._together, *self._alone]
            self._together.clear()
            self._alone.clear()
            self._release(waiting)
        if said != (self.tags, self.timeout_seconds, self.retry_delay_seconds, self.label):
            self._around.loaded(self._ae_title)
        self._go_on()

    def _grouped(self, asked: list[_Asked], message: calls.Grouped) -> None:
        self._succeeded()
        self._keys += len(message.keys)
        known = asked[: len(message.keys)]
        del asked[: len(message.keys)]
        for each, key in zip(known, message.keys, strict=True):
            problem = failed_to_group(self.name, key.error) if key.error else ""
            each.done(Answer(self, key.key, problem))
        error = next((key.error for key in message.keys if key.error), "")
        if error:
            self._tell("group_key", error, message.trace)
        if asked:
            assert self._host is not None
            self._host.progress(limits.KEYS_SECONDS)
        else:
            self._answered()
            self._go_on()

    def _send_members(self, planning: _Planning) -> None:
        """One page, so that a large group does not hold the main loop up."""
        assert self._host is not None
        if planning.pages is None:
            planning.pages = planning.members.pages()
        try:
            page = next(planning.pages, [])
        except pw.PeeweeException:
            # Not its fault: the processor meets the same, and looks at the group again after that.
            self._plannings.pop(planning.group.group_id, None)
            self._answered()
            self._end_host()
            self._go_on()
            return
        self._host.send(calls.Members(instances=tuple(page)))

    def _planned(self, planning: _Planning, outcome: tuple[JobPlan, ...] | PluginError) -> None:
        self._succeeded()
        self._failed_plans.pop(planning.group.group_id, None)
        planning.outcome = outcome
        self._answered()
        self._around.planned(planning.group)
        self._go_on()

    def _answered(self) -> None:
        self._under_way = None
        if self._host is not None:
            self._host.answered()

    def _succeeded(self) -> None:
        if self._failures:
            self._failures = 0
            self._around.log.info("job_processor_works_again", processor=self.name, ae_title=self._ae_title)

    # Failures.

    def _fail(self, reason: str, trace: str = "") -> None:
        """The host is of no use any more."""
        self._end_host()
        work, self._under_way = self._under_way, None
        step = "idle"
        match work:
            case _Loading():
                step = "load"
            case list():
                step = "group_key"
                self._strike(work, reason)
            case _Planning():
                step = "plan"
                self._fail_plan(work, reason)
        pause_seconds = min(limits.LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2 ** min(self._failures, _DOUBLINGS))
        self._failures += 1
        self._pause = self._around.loop.after(pause_seconds, self._try_again)
        self._around.log.error(
            "job_processor_failed",
            processor=self.name,
            ae_title=self._ae_title,
            step=step,
            reason=reason,
            pause_seconds=pause_seconds,
            waiting=self.waiting,
            **({"trace": trace} if trace else {}),
        )

    def _strike(self, asked: list[_Asked], reason: str) -> None:
        """Those that were under way are asked one by one; one with which it fails alone is given up at last."""
        for each in asked:
            if each.keys_before is None:
                each.keys_before = self._keys
        if len(asked) == 1:
            (each,) = asked
            each.strikes += 1
            if each.strikes >= (STRIKES if each.keys_before != self._keys else LONE_STRIKES):
                times = f"{each.strikes} times with this instance alone"
                asked.pop().done(Answer(self, problem=f"the job processor {self.name!r} failed: {reason}, {times}"))
        self._alone += asked

    def _fail_plan(self, planning: _Planning, reason: str) -> None:
        group_id = planning.group.group_id
        times = self._failed_plans[group_id] = self._failed_plans.get(group_id, 0) + 1
        pause_seconds = max(self.retry_delay_seconds, _FIRST_PAUSE_SECONDS) * 2 ** min(times - 1, _DOUBLINGS)
        planning.outcome = PluginError(
            f"the job processor {self.name!r} failed: {reason}", min(_LONGEST_PLAN_PAUSE_SECONDS, pause_seconds)
        )
        self._around.planned(planning.group)

    def _try_again(self) -> None:
        self._pause = None
        self._go_on()

    def _end_host(self) -> None:
        if self._host is not None:
            self._host.close()
            self._host = None

    def _release(self, asked: list[_Asked]) -> None:
        for each in asked:
            each.done(None)

    def _tell(self, step: str, error: str, trace: str) -> None:
        """An error of the plug-in's own, once while it stays the same: there may be one for each instance."""
        if trace != self._told_trace:
            self._told_trace = trace
            self._around.log.warning(
                "job_processor_raised",
                processor=self.name,
                ae_title=self._ae_title,
                step=step,
                error=error,
                trace=trace,
            )
