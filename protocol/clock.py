"""Moments that survive restarts and clock steps: wall time for people, the boot clock for waiting."""

import functools
from datetime import UTC, datetime
from pathlib import Path
from time import CLOCK_BOOTTIME, clock_gettime_ns, monotonic_ns, time_ns

import msgspec

NANOSECONDS = 1_000_000_000


class Moment(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """When something happened.

    Args:
        wall_ns: nanoseconds since 1970 UTC.
        boot_ns: nanoseconds of CLOCK_BOOTTIME, or 0 when it is not known (a file's time stamp).
        boot: which boot `boot_ns` counts from, or "".
    """

    wall_ns: int
    boot_ns: int = 0
    boot: str = ""


@functools.cache
def boot_id() -> str:
    """The first eight characters of the kernel's identifier of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]


def now() -> Moment:
    """This moment on both clocks."""
    return Moment(time_ns(), clock_gettime_ns(CLOCK_BOOTTIME), boot_id())


def seconds_between(earlier: Moment, later: Moment) -> float:
    """Seconds from one moment to another: by the boot clock when both are of one boot, else by wall time."""
    if earlier.boot and earlier.boot == later.boot:
        return (later.boot_ns - earlier.boot_ns) / NANOSECONDS
    return (later.wall_ns - earlier.wall_ns) / NANOSECONDS


class CautiousClock:
    """The wall clock for what is deleted when it is old: a step ahead within this process makes nothing old."""

    _AHEAD_NS = 3600 * NANOSECONDS  # so much may be mended of a clock that was behind

    def __init__(self) -> None:
        self._began_ns, self._began = time_ns(), monotonic_ns()

    def now_ns(self) -> int:
        """This moment, in ns of the wall clock."""
        return min(time_ns(), self._began_ns + monotonic_ns() - self._began + self._AHEAD_NS)


def iso(wall_ns: int) -> str:
    """Wall time in nanoseconds as ISO 8601 in UTC with milliseconds."""
    moment = datetime.fromtimestamp(wall_ns / NANOSECONDS, tz=UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
