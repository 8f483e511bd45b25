"""Who may open an association."""

import queue
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from actors.receiver.admission import Admission, Admitted, NamesNeeded, Refused
from actors.receiver.names import HostNames
from actors.receiver.pdu import Rejection
from protocol.access import AccessFile, AccessList, AeTitleRule, SourceRule, normalize_address
from protocol.logs import EventLogger
from protocol.moves import ExpectedMove, MovesFile


class Loop:
    """Keeps what threads post until the test runs it."""

    def __init__(self) -> None:
        self.posted: queue.Queue[Callable[[], None]] = queue.Queue()

    def run(self) -> None:
        self.posted.get(timeout=10)()


class Names:
    """A name server."""

    def __init__(self) -> None:
        self.answers: dict[str, set[str]] = {}
        self.asked: list[str] = []

    def resolve(self, name: str) -> frozenset[str]:
        self.asked.append(name)
        if name not in self.answers:
            raise OSError("no answer")
        return frozenset(self.answers[name])


class Setting:
    def __init__(self, path: Path) -> None:
        self.file = AccessFile(path)
        self.path = path
        self.loop = Loop()
        self.server = Names()
        log = EventLogger("test")
        self.names = HostNames(self.loop.posted.put, log, self.server.resolve)
        self.admission = Admission(AccessFile(path), self.names, log)

    def allow(self, *hosts: str, accepting: bool = True) -> None:
        self.file.replace(
            AccessList(
                ae_titles=(AeTitleRule(ae_title="CT", accepting=accepting),),
                sources=tuple(SourceRule(ae_title="PACS", host_ip=host) for host in hosts),
            )
        )

    def decide(
        self,
        host: str = "10.0.0.1",
        called: str = "CT",
        calling: str = "PACS",
        *,
        any_source: bool = False,
        last_word: bool = False,
    ) -> Admitted | Refused | NamesNeeded:
        return self.admission.decide(
            called=called,
            calling=calling,
            host=normalize_address(host),
            any_source=any_source,
            last_word=last_word,
        )

    def rejection(self, *args: str, **more: bool) -> Rejection:
        outcome = self.decide(*args, **more)
        assert isinstance(outcome, Refused)
        return outcome.rejection


@pytest.fixture
def at(tmp_path: Path) -> Setting:
    return Setting(tmp_path / "access.json")


def test_before_there_is_a_list_nobody_is_admitted(at: Setting) -> None:
    assert at.rejection() is Rejection.CALLING_AE_TITLE
    assert at.rejection(any_source=True) is Rejection.CALLED_AE_TITLE


@pytest.mark.parametrize(
    ("listed", "host", "admitted"),
    [
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("10.0.0.1", "::ffff:10.0.0.1", True),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("10.0.0.0/24", "10.0.0.77", True),
        ("10.0.0.5/24", "10.0.0.77", True),
        ("10.0.0.0/24", "10.0.1.1", False),
        ("10.0.0.0/24", "::ffff:10.0.0.9", True),
        ("fd00::/8", "fd00::1", True),
        ("fd00::/8", "10.0.0.1", False),
        ("fe80::1", "fe80::1%eth0", True),
        ("10.9.9.9, 10.0.0.1", "10.0.0.1", True),
        ("10.9.9.9;10.0.0.1", "10.0.0.1", True),
        ("10.9.9.9 10.0.0.1", "10.0.0.1", True),
    ],
)
def test_hosts(at: Setting, listed: str, host: str, admitted: bool) -> None:
    at.allow(listed)
    assert isinstance(at.decide(host), Admitted) is admitted


def test_one_title_may_call_from_several_sources(at: Setting) -> None:
    at.allow("10.0.0.1", "10.0.0.2")
    assert isinstance(at.decide("10.0.0.2"), Admitted)


def test_the_calling_title_is_looked_at_first(at: Setting) -> None:
    at.allow("10.0.0.1")
    assert at.rejection("10.0.0.1", "NONE", "NONE") is Rejection.CALLING_AE_TITLE
    assert at.rejection("10.0.0.1", "NONE") is Rejection.CALLED_AE_TITLE


def test_with_unknown_sources_allowed_the_host_does_not_matter(at: Setting) -> None:
    at.allow("10.0.0.1")
    assert isinstance(at.decide("10.7.7.7", calling="ANYONE", any_source=True), Admitted)
    assert at.rejection("10.7.7.7", "CT", "", any_source=True) is Rejection.CALLING_AE_TITLE


def test_titles_are_compared_exactly_and_the_log_gets_a_hint(at: Setting) -> None:
    at.allow("10.0.0.1")
    called, calling = at.decide(called="ct"), at.decide(calling="pacs")
    assert isinstance(called, Refused)
    assert isinstance(calling, Refused)
    assert "case only" in called.hint
    assert "case only" in calling.hint


def test_blank_titles_are_refused(at: Setting) -> None:
    at.allow("10.0.0.1")
    assert at.rejection("10.0.0.1", "", "PACS") is Rejection.CALLED_AE_TITLE
    assert at.rejection("10.0.0.1", "CT", "") is Rejection.CALLING_AE_TITLE


def test_a_title_that_was_deleted_is_not_accepted(at: Setting) -> None:
    at.allow("10.0.0.1", accepting=False)
    assert at.rejection() is Rejection.CALLED_AE_TITLE


def test_a_change_holds_at_once_and_a_broken_list_leaves_the_last(at: Setting) -> None:
    at.allow("10.0.0.1")
    assert isinstance(at.decide(), Admitted)
    at.allow("10.0.0.2")
    assert isinstance(at.decide(), Refused)
    at.path.write_text("{ no json")
    assert isinstance(at.decide("10.0.0.2"), Admitted)


class TestNames:
    def test_an_unknown_name_is_asked_for_before_anyone_is_refused(self, at: Setting) -> None:
        at.allow("pacs.example")
        at.server.answers["pacs.example"] = {"10.0.0.1"}
        outcome = at.decide()
        assert outcome == NamesNeeded(frozenset({"pacs.example"}))
        told: list[bool] = []
        at.names.refresh(outcome.names, lambda: told.append(True))
        at.loop.run()
        assert told == [True]
        assert isinstance(at.decide(), Admitted)
        assert isinstance(at.decide("10.0.0.2"), Refused)

    def test_the_last_word_does_not_wait(self, at: Setting) -> None:
        at.allow("pacs.example")
        assert at.rejection(last_word=True) is Rejection.CALLING_AE_TITLE

    def test_a_failing_name_server_leaves_the_last_good_answer(self, at: Setting) -> None:
        at.allow("pacs.example")
        at.server.answers["pacs.example"] = {"10.0.0.1"}
        at.admission.warm_up()
        at.loop.run()
        at.server.answers.clear()
        at.names.refresh({"pacs.example"}, lambda: None)
        at.loop.run()
        assert isinstance(at.decide(), Admitted)

    def test_a_name_is_asked_for_once_at_a_time(self, at: Setting) -> None:
        at.server.answers["pacs.example"] = {"10.0.0.1"}
        told: list[int] = []
        at.names.refresh({"pacs.example"}, lambda: told.append(1))
        at.names.refresh({"pacs.example"}, lambda: told.append(2))
        at.loop.run()
        assert told == [1, 2]
        assert at.server.asked == ["pacs.example"]

    def test_an_address_decides_without_the_name_server(self, at: Setting) -> None:
        at.allow("pacs.example", "10.0.0.1")
        assert isinstance(at.decide(), Admitted)
        assert at.server.asked == []

    def test_a_name_that_cannot_be_one_is_no_match_and_no_crash(self, at: Setting) -> None:
        at.names = HostNames(at.loop.posted.put, EventLogger("test"))
        at.names.refresh({"a..b", "x" * 300}, lambda: None)
        at.loop.run()
        at.loop.run()
        assert at.names.addresses("a..b") == frozenset()


def test_our_own_title_is_open_to_a_host_from_which_a_move_is_expected_and_only_then(tmp_path: Path) -> None:
    moves = MovesFile(tmp_path / "moves.json")
    names = HostNames(lambda _: None, EventLogger("test"))
    access = AccessFile(tmp_path / "access.json")
    admission = Admission(access, names, EventLogger("test"), MovesFile(tmp_path / "moves.json"))

    def decide(host: str, called: str = "OURS", calling: str = "PACS") -> object:
        return admission.decide(called=called, calling=calling, host=host, any_source=False, own="OURS")

    assert isinstance(decide("10.0.0.1"), Refused)
    later = time.time_ns() + 60 * 10**9
    moves.replace((ExpectedMove(host="10.0.0.1", until_ns=later), ExpectedMove(host="10.0.0.3", until_ns=1)))
    assert decide("10.0.0.1") == Admitted(AeTitleRule(ae_title="OURS"), moved=True)
    for refused in (
        decide("10.0.0.2"),
        decide("10.0.0.3"),
        decide("10.0.0.1", "OTHER"),
        decide("10.0.0.1", calling=""),
    ):
        assert isinstance(refused, Refused)
    moves.replace(())
    assert isinstance(decide("10.0.0.1"), Refused)
    (tmp_path / "moves.json").write_text("garbage")
    assert isinstance(decide("10.0.0.1"), Refused)


def test_an_ae_title_of_the_same_name_takes_the_others(tmp_path: Path) -> None:
    """A site may receive under the title that it also uses as SCU."""
    access = AccessFile(tmp_path / "access.json")
    access.replace(
        AccessList(
            ae_titles=(AeTitleRule(ae_title="OURS"),), sources=(SourceRule(ae_title="CT", host_ip="10.0.0.0/8"),)
        )
    )
    MovesFile(tmp_path / "moves.json").replace((ExpectedMove(host="10.0.0.1", until_ns=time.time_ns() + 10**12),))
    names = HostNames(lambda _: None, EventLogger("test"))
    admission = Admission(access, names, EventLogger("test"), MovesFile(tmp_path / "moves.json"))
    for host, moved in (("10.0.0.1", True), ("10.0.0.2", False)):
        outcome = admission.decide(called="OURS", calling="CT", host=host, any_source=False, own="OURS")
        assert isinstance(outcome, Admitted)
        assert (outcome.moved, outcome.shared) == (moved, moved)
