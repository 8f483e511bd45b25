"""How lanes bring what is synced to the disk: by how many they are, and by how quick it is."""

import pytest

from actors.receiver import pace
from actors.receiver.pace import AT_ONCE, DIRECT, Pace


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Its first element is the time."""
    now = [1000.0]
    monkeypatch.setattr(pace.time, "monotonic", lambda: now[0])
    return now


def _nobody(_: float) -> None:
    """Is told."""


def test_a_few_senders_are_served_at_once_and_many_beside_each_other() -> None:
    subject = Pace(_nobody, is_usual=False)
    assert [subject.ways(sender) for sender in (1, 2, 3, 1, 2, 3)] == [DIRECT | AT_ONCE] * 6
    assert subject.ways(4) == DIRECT
    assert subject.ways(1) == DIRECT
    subject.look()
    assert subject.ways(1) == DIRECT, "there were many in the last second"
    subject.look()
    assert subject.ways(1) == DIRECT | AT_ONCE


def test_a_disk_that_is_slow_once_is_not_slow() -> None:
    subject = Pace(_nobody, is_usual=False)
    for hiccup in (0.05, 0.5, 30.0):
        subject.waited(hiccup)
        for _ in range(100):
            subject.waited(0.002)
        assert subject.ways(1) == DIRECT | AT_ONCE


def test_a_slow_disk_is_told_of(clock: list[float]) -> None:
    told: list[float] = []
    subject = Pace(told.append, is_usual=False)
    for _ in range(3):
        while subject.ways(1):
            subject.waited(0.02)
        clock[0] += 10
        subject.look()
    assert len(told) == 3
    assert all(0.008 < seconds < 0.02 for seconds in told)


@pytest.mark.parametrize("seconds", [0.012, 0.1, 3.0])
def test_a_slow_disk_keeps_the_page_cache_until_it_is_tried_again(clock: list[float], seconds: float) -> None:
    subject = Pace(_nobody, is_usual=False)
    tries = 0
    while subject.ways(1):
        subject.waited(seconds)
        tries += 1
    assert tries < 12
    for _ in range(9):
        clock[0] += 1
        subject.look()
        assert subject.ways(1) == 0
    clock[0] += 2
    subject.look()
    assert subject.ways(1) == DIRECT | AT_ONCE
    for _ in range(6):
        subject.waited(seconds)
    assert subject.ways(1) == 0, "it is known sooner the second time"


def test_turns_that_did_not_wait_say_nothing_of_the_disk() -> None:
    subject = Pace(_nobody, is_usual=False)
    for _ in range(2):
        subject.waited(0.03)
        for _ in range(1000):
            subject.waited(0.0)
    assert subject.ways(1)
    subject.waited(0.03)
    assert subject.ways(1) == 0


@pytest.mark.parametrize("value", ["", "1"])
def test_the_environment_turns_both_off(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(pace.NO_DIRECT_WRITES, value)
    subject = Pace(_nobody)
    assert bool(subject.ways(1)) is not bool(value)
    subject.look()
    assert bool(subject.ways(1)) is not bool(value)
