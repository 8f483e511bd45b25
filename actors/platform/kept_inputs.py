"""The inputs of runs that failed: kept for a week, in which a person may have them run again, while there is room."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from actors.platform.leftovers import remove_tree
from actors.platform.runs import Runs
from protocol import killpoints, messages
from protocol.clock import NANOSECONDS, CautiousClock

if TYPE_CHECKING:
    from actors.platform.platform import Platform

_KEPT_NS = 7 * 86_400 * NANOSECONDS
_AT_ONCE, _SHARE = 20, 20  # so many, or one in so many of those that are kept: the oldest
_AGAIN_SECONDS = 30.0


class KeptInputs:
    """Gives them up in the loop, so that none is being run again, and removes them in a thread.

    What a kill leaves of one that was given up is removed at the next start.

    Args:
        actor: whose loop is used.
        runs: all runs.
        clock: by which they are old.
    """

    def __init__(self, actor: "Platform", runs: Runs, clock: CautiousClock) -> None:
        self._actor = actor
        self._runs = runs
        self._clock = clock
        self._given_up: list[str] = []  # payloads that are still to be removed
        self._left: list[str] = []  # that could not be
        self._again_at = 0.0

    def give_up(self, *, is_short: bool) -> None:
        """Commit that some cannot be run again: those that are old, or the oldest when room is short.

        Raises:
            peewee.PeeweeException: the ledger does not answer; it comes up again.
        """
        most = max(_AT_ONCE, self._runs.kept_inputs() // _SHARE)
        until = None if is_short else self._clock.now_ns() - _KEPT_NS
        given_up = self._runs.give_up_inputs(until, most)
        if given_up:
            killpoints.reach("platform.rerun-given-up")
            self._actor.log.info("inputs_given_up", runs=len(given_up))
            self._given_up += given_up

    def discard(self, command: messages.JobsChosen) -> int:
        """Commit that a person gives up the inputs of some jobs; returns how many.

        Raises:
            peewee.PeeweeException: the ledger does not answer; it may be repeated.
        """
        discarded = self._runs.discard_inputs(command)
        self._given_up += discarded
        return len(discarded)

    def take(self) -> list[str]:
        """The payloads that are to be removed now; one that could not be is tried again after a while."""
        payloads, self._given_up = self._given_up, []
        if time.monotonic() >= self._again_at:
            payloads, self._left, self._again_at = payloads + self._left, [], time.monotonic() + _AGAIN_SECONDS
        return payloads

    def remove(self, payloads: Sequence[str]) -> None:
        """Remove payloads, in a thread; one that makes trouble keeps no other from it."""
        left: list[str] = []
        reason: str | None = None
        for payload_id in payloads:
            try:
                remove_tree(self._runs.payload(payload_id))
            except OSError as error:
                left.append(payload_id)
                reason = error.strerror
        if left:
            remedy = "see what is wrong with the storage; it is tried again"
            self._actor.log.warning("inputs_not_removed", runs=len(left), reason=reason, remedy=remedy)
            self._actor.post(lambda: self._left.extend(left))
