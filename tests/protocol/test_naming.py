"""Job names: what may stand in them, how long they are, and that none comes twice."""

import re
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.naming import LONGEST, JobNames, job_name

MOMENT = datetime(2024, 2, 29, 23, 59, 58, 999_999, tzinfo=UTC)
TIMES = st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@pytest.mark.parametrize(
    ("prefix", "label", "name"),
    [
        ("COVIDAET", "covid", "covidaet-covid-20240229235958"),
        ("My_AE.Title", "Brain  Seg!", "my-ae-title-brain-seg-20240229235958"),
        ("AE", "a--b", "ae-a-b-20240229235958"),
        ("-AE-", "-x-", "ae-x-20240229235958"),
        ("AE", "", "ae-20240229235958"),
        ("", "", "20240229235958"),
        ("AE", "größe", "ae-gr-e-20240229235958"),
        ("AE", "x" * 100, f"ae-{'x' * 45}-20240229235958"),
        ("AE", "x" * 44 + "-yyy", f"ae-{'x' * 44}-20240229235958"),
        ("T" * 100, "x", f"{'t' * 48}-20240229235958"),
    ],
)
def test_examples(prefix: str, label: str, name: str) -> None:
    assert job_name(prefix, label, MOMENT) == name


def test_the_time_is_utc() -> None:
    assert job_name("A", "B", MOMENT.astimezone(timezone(timedelta(hours=9)))) == job_name("A", "B", MOMENT)


@given(st.text(max_size=80), st.text(max_size=120), TIMES)
def test_any_name_is_a_label_that_ends_with_the_whole_time(prefix: str, label: str, moment: datetime) -> None:
    name = job_name(prefix, label, moment)
    assert len(name) <= LONGEST
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
    assert name.endswith(moment.strftime("%Y%m%d%H%M%S"))


@given(st.from_regex(r"[A-Za-z0-9 _.-]{1,16}", fullmatch=True), st.text(max_size=120))
def test_what_is_too_long_is_cut_from_name_alone(ae_title: str, label: str) -> None:
    cleaned = re.sub("[^a-z0-9]+", "-", ae_title.lower()).strip("-")
    assert job_name(ae_title, label, MOMENT).startswith(cleaned)


class Ledger:
    """Names in use, and how often they were asked for."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.questions = 0

    def taken(self, names: Sequence[str]) -> Collection[str]:
        self.questions += 1
        return self.names.intersection(names)


@given(st.lists(st.tuples(st.sampled_from(["A", "a", "A_", "B"]), st.sampled_from(["x", "X!", "y"])), max_size=40))
def test_names_are_unique_and_move_on_by_seconds(wanted: list[tuple[str, str]]) -> None:
    ledger = Ledger()
    names = JobNames(ledger.taken)
    for prefix, label in wanted:
        name = names.new(prefix, label, MOMENT)
        assert name not in ledger.names
        head = name[:-14]
        before = sum(1 for each in ledger.names if each[:-14] == head)
        assert name == job_name(prefix, label, MOMENT + timedelta(seconds=before))
        ledger.names.add(name)


def test_after_a_start_the_ledger_tells_what_is_taken() -> None:
    ledger = Ledger()
    first = JobNames(ledger.taken)
    ledger.names = {first.new("AE", "p", MOMENT) for _ in range(300)}
    ledger.questions = 0
    again = JobNames(ledger.taken)
    assert again.new("AE", "p", MOMENT) == job_name("AE", "p", MOMENT + timedelta(seconds=300))
    assert ledger.questions == 4
    assert again.new("AE", "p", MOMENT) == job_name("AE", "p", MOMENT + timedelta(seconds=301))
    assert ledger.questions == 5
