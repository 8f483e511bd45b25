"""What must hold around bad input: the same processes as before, nothing left, a healthy sender served, a clean log."""

import re
import time

from tests.below import paths_below
from tests.faults.bystander import PACE_SECONDS, Bystander
from tests.faults.victims import descriptors, threads
from tests.gateway import Gateway, rss_peak_bytes

_FEWEST = 5  # objects that the healthy association has delivered since a row began
_SLOWEST_MEDIAN_SECONDS = 0.25
_MORE_DESCRIPTORS, _MORE_THREADS, _MORE_BYTES = 12, 6, 80_000_000
_UNEXPECTED = "marker=UNEXPECTED"


class Surroundings:
    """The gateway, the healthy association, and what processes had before.

    Args:
        gateway: it runs.
        bystander: it delivers.
        patient: of what is bad; stands in no log.
    """

    def __init__(self, gateway: Gateway, bystander: Bystander, patient: str) -> None:
        self._patient = patient
        self.gateway = gateway
        self.bystander = bystander
        self._before = self._measure()
        self._peaks = self._peak_bytes()
        self._logged = 0

    def begin(self) -> float:
        """Before a row."""
        self._before, self._peaks = self._measure(), self._peak_bytes()
        self._logged = len(self.gateway.log_text())
        return time.monotonic()

    def check(self, began: float) -> None:
        """After a row.

        Raises:
            AssertionError: it cost somebody else something.
        """
        gateway = self.gateway
        gateway.wait_for(lambda: not self.left(), 15.0, f"nothing left of it, but {self.left()}")
        taken = self._peak_bytes()
        grown = {name: taken[name] - peak for name, peak in self._peaks.items() if taken[name] > peak + _MORE_BYTES}
        assert not grown, f"memory: {grown}"
        gateway.wait_for(lambda: len(self.bystander.seconds_since(began)) >= _FEWEST, 10.0, "service for the healthy")
        took, passed = self.bystander.seconds_since(began), time.monotonic() - began
        assert len(took) >= passed / PACE_SECONDS / 4, f"{len(took)} objects in {passed:.1f} s"
        assert took[len(took) // 2] < _SLOWEST_MEDIAN_SECONDS
        told = gateway.log_text()[self._logged :]
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", told)
        assert _UNEXPECTED not in told
        assert self._patient not in told

    def told(self, words: str) -> None:
        """Wait until the row's part of the log has these words."""
        self.gateway.wait_for(lambda: words in self.gateway.log_text()[self._logged :], 15.0, f"{words!r} in the log")

    def quarantined(self, uid_or_reason: str, count: int = 1) -> None:
        """Wait until so many instances are quarantined for a reason."""

        def found() -> bool:
            listed = self.gateway.rest.get("/api/quarantine").json()
            return sum(uid_or_reason in each["reason"] for each in listed) >= count

        self.gateway.wait_for(found, 20.0, f"{count} in quarantine for {uid_or_reason!r}")

    def _measure(self) -> dict[str, tuple[int, int, int]]:
        found = {}
        for actor in self.gateway.status().actors:
            assert actor.pid is not None
            found[actor.name] = (actor.pid, descriptors(actor.pid), threads(actor.pid))
        return found

    def _peak_bytes(self) -> dict[str, int]:
        return {name: rss_peak_bytes(pid) for name, (pid, _, _) in self._measure().items()}

    def left(self) -> list[str]:
        """What should not be there now."""
        try:
            return self._left()
        except FileNotFoundError as error:  # a shard was reclaimed while it was looked at
            return [f"{error.filename}, which has just vanished"]

    def _left(self) -> list[str]:
        found = []
        for name, (pid, open_now, threads_now) in self._measure().items():
            pid_then, open_then, threads_then = self._before[name]
            if pid != pid_then:
                raise AssertionError(f"{name} was replaced")
            if open_now > open_then + _MORE_DESCRIPTORS or threads_now > threads_then + _MORE_THREADS:
                found.append(f"{name}: {open_now} descriptors, {threads_now} threads ({open_then}, {threads_then})")
        if (associations := self.gateway.status().active_associations) != 1:
            found.append(f"{associations} associations")
        parts = list((self.gateway.spool / "instances").glob("*/*.part"))
        if len(parts) > 1:  # the healthy one may have one
            found.append(f"{len(parts)} files in transit")
        found += [f"temporary {path.name}" for path in paths_below(self.gateway.spool) if path.name.startswith(".")]
        return found
