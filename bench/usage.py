"""What a receiving side costs: CPU time and memory over all its processes, as the kernel counts them."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Self

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_SAMPLE_SECONDS = 0.2


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU time of processes since they began, ended children that were waited for included."""
    total = 0.0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += sum(int(field) for field in fields[11:15]) / _TICKS  # utime, stime, cutime, cstime
    return total


def peak_bytes(pid: int) -> int:
    """The most memory that a process ever had resident; 0 when it is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


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


class MemoryWatch:
    """Looks now and then, while a block lasts, how much memory some processes have resident together.

    Pages that several of them share are counted for each. `peak_bytes` is the most that was seen.

    Args:
        pids: which; asked anew at every look.
    """

    def __init__(self, pids: Callable[[], Iterable[int]]) -> None:
        self._pids = pids
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)
        self.peak_bytes = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(_SAMPLE_SECONDS):
            resident = 0
            for pid in self._pids():
                with contextlib.suppress(OSError):
                    resident += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
            self.peak_bytes = max(self.peak_bytes, resident)
