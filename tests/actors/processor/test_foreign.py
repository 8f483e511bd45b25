"""Job processors of other packages, and what becomes of what waits for them when they misbehave."""

import logging
import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.processor.foreign import STRIKES, ForeignPlugin, Surroundings
from actors.processor.groups import OpenGroup
from actors.processor.members import Members
from actors.processor.plugin import Answer, PluginError
from protocol.clock import Moment
from protocol.job_processors import JobPlan
from protocol.logs import EventLogger
from protocol.messages import DescribedInstance
from protocol.plugins import limits
from tests import plug_ins
from tests.actors.launcher import PATIENCE_SECONDS
from tests.actors.processor.loop import Loop


class Pages(Members):
    """A group's instances without a ledger."""

    def pages(self) -> Iterator[list[DescribedInstance]]:
        left = len(self)
        while left:
            page = [described(str(number)) for number in range(min(400, left))]
            left -= len(page)
            yield page


class Log(EventLogger):
    """Remembers the failures."""

    def __init__(self) -> None:
        super().__init__("adapter.processor")
        self.failures: list[tuple[str, str, float]] = []
        self.printed: list[str] = []
        self.debugs = False

    def enabled(self, level: int) -> bool:
        return level > logging.DEBUG or self.debugs

    def debug(self, event: str, **fields: object) -> None:
        assert event == "job_processor_printed"
        self.printed.append(str(fields["text"]))

    def error(self, event: str, **fields: object) -> None:
        assert event == "job_processor_failed"
        self.failures.append((str(fields["step"]), str(fields["reason"]), float(str(fields["pause_seconds"]))))


class Situation:
    """A job processor, its loop, and what it answers."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.loop = Loop()
        self.log = Log()
        self.loaded: list[str] = []
        self.planned: list[OpenGroup] = []
        self.answers: dict[str, Answer | None] = {}
        around = Surroundings(self.loop, self.log, self.loaded.append, self.planned.append)
        settings = {"pipeline": "id", "directory": str(directory), "seconds": "9", "count": ""}
        self.plugin = ForeignPlugin("wayward", "AE", settings, around)

    def misbehave(self, step: str, how: str) -> None:
        (self.directory / step).write_text(how)

    def mend(self, step: str) -> None:
        (self.directory / step).unlink()

    def load(self) -> None:
        self.plugin.prepare()
        self.loop.until(lambda: self.loaded, "the job processor is loaded")

    def ask(self, *studies: str) -> None:
        for study in studies:

            def done(answer: Answer | None, study: str = study) -> None:
                self.answers[study] = answer

            self.plugin.ask_key(described(study), done)

    def wait_answers(self, count: int) -> None:
        self.loop.until(lambda: len(self.answers) == count, f"{count} answers, not only {self.answers.keys()}")

    def keys(self) -> dict[str, str]:
        return {study: answer.key if answer else "" for study, answer in self.answers.items()}

    def plan(self, group: OpenGroup) -> tuple[JobPlan, ...]:
        self.planned.clear()
        assert self.plugin.plan(group, Pages(group)) is None
        self.loop.until(lambda: self.planned, "the jobs are planned")
        plans = self.plugin.plan(group, Pages(group))
        assert plans is not None
        return plans


@pytest.fixture
def situation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Situation]:
    for name, value in plug_ins.install_wayward(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(limits, "LONGEST_PAUSE_SECONDS", 0.1)
    made = Situation(tmp_path)
    yield made
    made.plugin.close()
    made.loop.until(lambda: made.loop.watched == 0, "its processes end")


def described(study: str) -> DescribedInstance:
    return DescribedInstance(
        identifier=f"shard/{study}",
        stored=Moment(0),
        study_uid=study,
        sop_instance_uid=study,
        attributes={"0020000D": study},
    )


def group(number: int = 1, instances: int = 1) -> OpenGroup:
    return OpenGroup(
        group_id=number,
        ae_title="AE",
        key=f"study {number}",
        revision=0,
        processor="wayward",
        opened_ns=0,
        last=Moment(0),
        last_at=0.0,
        instances=instances,
    )


def test_nothing_is_known_before_it_is_loaded(situation: Situation) -> None:
    """What was asked before comes again, maybe to be described with what is needed."""
    assert situation.plugin.tags is None
    situation.ask("1", "2")
    situation.wait_answers(2)
    assert situation.answers == {"1": None, "2": None}
    assert situation.plugin.tags == ("0020000D",)
    assert (situation.plugin.timeout_seconds, situation.plugin.label) == (9.0, "Wayward")
    assert situation.loaded == ["AE"]


def test_more_keys_than_a_message_holds_and_a_large_group(situation: Situation) -> None:
    situation.load()
    situation.ask(*map(str, range(2000)))
    assert situation.plugin.waiting == 2000
    situation.wait_answers(2000)
    assert situation.keys() == {str(number): f"study {number}" for number in range(2000)}
    assert situation.plugin.group_key(described("7"), situation.answers["7"]) == "study 7"
    assert situation.plan(group(instances=1000)) == (JobPlan(label="1000-400", pipeline_id="id", priority="higher"),)
    assert situation.log.failures == []


def test_an_answer_of_another_does_not_count(situation: Situation) -> None:
    answer = Answer(Situation(situation.directory).plugin, "key")
    assert situation.plugin.group_key(described("1"), answer) is None
    assert situation.plugin.group_key(described("1"), None) is None


MISDEEDS = [
    ("loop", "it did not answer in 1 s"),
    ("crash", "it was ended by SIGSEGV"),
    ("leave", "it exited with code 3"),
    ("close_everything", "it was ended by SIGKILL"),
    ("talk_nonsense", "it said what nobody understands"),
]


@pytest.mark.parametrize(("how", "reason"), MISDEEDS)
def test_an_instance_with_which_it_fails_again_and_again_is_given_up(
    situation: Situation, monkeypatch: pytest.MonkeyPatch, how: str, reason: str
) -> None:
    """The others of its batch get their keys."""
    if how == "loop":
        monkeypatch.setattr(limits, "KEYS_SECONDS", 1.0)
    situation.load()
    situation.misbehave("group_key", f"{how} 3")
    situation.ask("0", "1", "2", "3", "4", "5")
    situation.wait_answers(6)
    bad = situation.answers.pop("3")
    assert situation.keys() == {each: f"study {each}" for each in "01245"}
    with pytest.raises(PluginError, match=f"'wayward' failed: {reason}, {STRIKES} times with this instance alone"):
        situation.plugin.group_key(described("3"), bad)
    assert {(step, why) for step, why, _ in situation.log.failures} == {("group_key", reason)}
    assert len(situation.log.failures) == STRIKES + 1 or how == "loop", "once together, then alone"


def test_while_it_fails_with_every_instance_they_wait_longer(
    situation: Situation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is broken, rather than one of them bad; but at last the first one is given up, so that its group goes on."""
    monkeypatch.setattr("actors.processor.foreign.LONE_STRIKES", 5)
    situation.load()
    situation.misbehave("group_key", "leave")
    situation.ask("1", "2")
    situation.wait_answers(1)
    with pytest.raises(PluginError, match="5 times with this instance alone"):
        situation.plugin.group_key(described("1"), situation.answers["1"])
    situation.mend("group_key")
    situation.wait_answers(2)
    assert situation.keys()["2"] == "study 2"


@pytest.mark.parametrize(
    ("how", "reason"), [MISDEEDS[0], MISDEEDS[2], ("raise_an_error", "it cannot be loaded (KeyError)")]
)
def test_what_cannot_be_loaded_is_tried_again_and_nothing_is_given_up(
    situation: Situation, monkeypatch: pytest.MonkeyPatch, how: str, reason: str
) -> None:
    if how == "loop":
        monkeypatch.setattr(limits, "LOAD_SECONDS", 1.0)
    situation.misbehave("init", how)
    situation.ask("1")
    situation.loop.until(lambda: len(situation.log.failures) > STRIKES, "failures")
    assert {(step, why) for step, why, _ in situation.log.failures} == {("load", reason)}
    assert situation.answers == {}
    situation.mend("init")
    monkeypatch.setattr(limits, "LOAD_SECONDS", PATIENCE_SECONDS)
    situation.wait_answers(1)


def test_settings_that_it_refuses_now_are_no_instances_fault(situation: Situation) -> None:
    situation.plugin = ForeignPlugin("wayward", "AE", {}, situation.plugin._around)
    situation.ask("1")
    situation.loop.until(lambda: situation.log.failures, "a failure")
    assert situation.log.failures[0][:2] == ("load", "pipeline is missing: give the ID of a pipeline")
    assert situation.answers == {}
    situation.plugin.close()  # the AE title was changed
    assert situation.answers == {"1": None}


def test_pauses_grow_until_it_works(situation: Situation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LONGEST_PAUSE_SECONDS", 0.5)
    monkeypatch.setattr("actors.processor.foreign._FIRST_PAUSE_SECONDS", 0.1)
    situation.load()
    situation.misbehave("plan", "leave")
    for _ in range(5):
        with pytest.raises(PluginError, match="exited with code 3"):
            situation.plan(group())
    assert [pause for _, _, pause in situation.log.failures] == [0.1, 0.2, 0.4, 0.5, 0.5]
    situation.mend("plan")
    assert len(situation.plan(group())) == 1
    situation.misbehave("plan", "leave")
    with pytest.raises(PluginError):
        situation.plan(group())
    assert situation.log.failures[-1][2] == 0.1


@pytest.mark.parametrize(("how", "reason"), MISDEEDS[:2])
def test_a_group_whose_jobs_cannot_be_planned_waits_longer_each_time(
    situation: Situation, monkeypatch: pytest.MonkeyPatch, how: str, reason: str
) -> None:
    """Others go on between."""
    if how == "loop":
        monkeypatch.setattr(limits, "PLAN_SECONDS", 1.0)
    situation.load()
    situation.misbehave("plan", f"{how} 1")
    for pause_seconds in (1.0, 2.0, 4.0):
        with pytest.raises(PluginError, match=f"'wayward' failed: {reason}") as error:
            situation.plan(group(1))
        assert error.value.pause_seconds == pause_seconds
        assert len(situation.plan(group(2))) == 1
    situation.mend("plan")
    assert len(situation.plan(group(1))) == 1


def test_an_ordinary_error_is_no_reason_to_end_it(situation: Situation) -> None:
    situation.load()
    situation.misbehave("plan", "raise_an_error")
    situation.misbehave("group_key", "raise_an_error 2")
    with pytest.raises(PluginError, match=r"failed to plan the jobs of a group \(KeyError\)") as error:
        situation.plan(group())
    assert error.value.pause_seconds == 0
    situation.ask("1", "2")
    situation.wait_answers(2)
    with pytest.raises(PluginError, match=r"failed to group an instance \(KeyError\)"):
        situation.plugin.group_key(described("2"), situation.answers["2"])
    assert situation.log.failures == []


def test_a_plan_for_a_group_that_has_changed_does_not_count(situation: Situation) -> None:
    situation.load()
    before, after = group(instances=1), group(instances=2)
    assert situation.plugin.plan(before, Pages(before)) is None
    situation.loop.until(lambda: situation.planned, "the jobs are planned")
    assert [plan.label for plan in situation.plan(after)] == ["2-2"]


def test_without_work_its_process_ends(situation: Situation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.processor.foreign.IDLE_SECONDS", 0.1)
    situation.load()
    situation.loop.until(lambda: situation.loop.watched == 0, "its end")
    assert situation.plugin.tags == ("0020000D",)
    situation.ask("1")
    situation.wait_answers(1)
    assert situation.keys() == {"1": "study 1"}
    assert situation.log.failures == []


def test_what_it_prints_is_told_at_debug_only(situation: Situation) -> None:
    situation.misbehave("init", "print_much")
    situation.load()
    situation.plugin.close()
    situation.loop.until(lambda: situation.loop.watched == 0, "its end")
    assert situation.log.printed == []
    talkative = Situation(situation.directory)
    talkative.log.debugs = True
    talkative.load()
    talkative.plugin.close()
    talkative.loop.until(lambda: talkative.loop.watched == 0, "its end")
    assert talkative.log.printed.count("much") == 20_000


def test_nothing_is_left_when_it_is_closed_in_the_middle(situation: Situation) -> None:
    situation.load()
    situation.misbehave("group_key", "fork")
    situation.ask("0")
    situation.wait_answers(1)
    situation.misbehave("group_key", "wait")
    situation.ask("1", "2")
    (host,) = _children(os.getpid())
    fds = [os.pidfd_open(pid) for pid in (host, *_children(host))]
    assert len(fds) == 2
    situation.plugin.close()
    assert situation.answers == {"0": situation.answers["0"], "1": None, "2": None}
    for fd in fds:
        assert select.select([fd], [], [], PATIENCE_SECONDS)[0]
        os.close(fd)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
