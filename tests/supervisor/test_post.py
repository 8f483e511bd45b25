"""Posts: who is started again, and when."""

import time

import pytest

from supervisor.post import Post


def test_the_first_restart_comes_at_once_and_pauses_grow() -> None:
    post = Post("extractor-1", "extractor")
    assert post.due(time.monotonic())
    pauses = [post.lost(-9, 1.0, asked=False) for _ in range(12)]
    assert pauses[0] <= 0.1
    assert pauses[4] > pauses[0]
    assert max(pauses) <= 30.0
    assert pauses[-1] >= 15.0
    assert post.restarts == 12
    assert not post.due(time.monotonic())


def test_a_process_that_lived_long_is_no_crash_loop() -> None:
    post = Post("extractor-1", "extractor")
    for _ in range(8):
        post.lost(1, 1.0, asked=False)
    assert post.lost(1, 3600.0, asked=False) <= 0.1


def test_one_that_was_asked_to_leave_is_replaced_at_once() -> None:
    post = Post("processor", "processor")
    post.lost(1, 1.0, asked=False)
    assert post.lost(0, 1.0, asked=True) == 0.0
    assert post.due(time.monotonic())


def test_a_wrong_configuration_is_not_tried_again_until_a_person_says_so() -> None:
    post = Post("submitter", "submitter")
    assert post.lost(78, 1.0, asked=False) == float("inf")
    assert post.state == "failed"
    assert not post.due(time.monotonic() + 10**9)
    post.start_now()
    assert post.due(time.monotonic())
    assert post.state == "backoff"


def test_what_goes_wrong_is_told_until_a_person_or_an_orderly_end_intervenes() -> None:
    post = Post("submitter", "submitter")
    assert post.trouble == ""
    post.lost(73, 1.0, asked=False)
    assert post.trouble == "ended by exit code 73"
    post.lost(-9, 1.0, asked=False)
    assert post.trouble == "ended 2 times in a row, the last time by SIGKILL"
    post.lost(0, 1.0, asked=True)
    assert post.trouble == ""
    post.lost(78, 1.0, asked=False)
    assert "configuration" in post.trouble


@pytest.mark.parametrize("code", [0, 1, 70, 73, -9, -6])
def test_every_other_end_is_followed_by_a_start(code: int) -> None:
    post = Post("submitter", "submitter")
    assert post.lost(code, 1.0, asked=False) < 1.0
