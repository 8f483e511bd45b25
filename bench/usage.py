"""What a receiving side costs: CPU time and peak memory over all its processes, as the kernel counts them."""

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """CPU seconds since the processes began, and the sum of their peaks of resident memory in bytes."""

    cpu_seconds: float
    peak_bytes: int


def usage_of(root: int, only: Iterable[int] = ()) -> Usage:
    """Add up a process and its descendants, ended children that were waited for included.

    Args:
        root: process ID.
        only: when given, these processes instead of the whole tree.
    """
    cpu, peak = 0.0, 0
    for pid in list(only) or tree(root):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            cpu += sum(int(field) for field in fields[11:15]) / _TICKS  # utime, stime, cutime, cstime
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    peak += int(line.split()[1]) * 1024
    return Usage(cpu, peak)


def tree(root: int) -> list[int]:
    """A process and its living descendants."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                parent = int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry))
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children.get(pid, [])
    return found
