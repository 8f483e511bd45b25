"""Receiving: objects a second, CPU and memory, ours and the peers' in interleaved rounds."""

import contextlib
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from bench import receivers
from bench.load import Load
from bench.receivers import Receiving

Start = Callable[[Path], AbstractContextManager[Receiving]]


@dataclass
class Series:
    """All rounds of one receiving side with one load."""

    name: str
    rates: list[float] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)
    cpu_per_gb: list[float] = field(default_factory=list)
    receiver_cpu_per_gb: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    receiver_peak_bytes: int = 0
    lost: int = 0

    def ratio_to(self, other: "Series") -> float:
        """The median of the rounds' ratios of rates."""
        return statistics.median(mine / theirs for mine, theirs in zip(self.rates, other.rates, strict=True))


def gateways(receivers_each: int = 2) -> list[Start]:
    """Ours, without and with syncs."""
    return [
        lambda directory: receivers.gateway(directory, sync=False, receivers=receivers_each),
        lambda directory: receivers.gateway(directory, sync=True, receivers=receivers_each),
    ]


def compare(
    load: Load, sides: Iterable[Start], rounds: int, *, nodelay: bool, tell: Callable[[str], None]
) -> list[Series]:
    """Measure the sides in turn, round after round; the first round warms up and is not counted.

    Args:
        load: what is sent.
        sides: what receives.
        rounds: counted rounds.
        nodelay: Nagle's algorithm off, for senders and peers alike.
        tell: shows progress.
    """
    place = Path(tempfile.mkdtemp(prefix="bench-", dir=os.environ.get("BENCH_DIRECTORY")))
    previous = os.environ.pop("TCP_NODELAY", None)
    try:
        with contextlib.ExitStack() as stack:
            running = [stack.enter_context(start(place / f"side{n}")) for n, start in enumerate(sides)]
            series = [Series(side.name) for side in running]
            for number in range(rounds + 1):
                for side, results in zip(running, series, strict=True):
                    _one(load, side, results if number else Series(side.name), nodelay=nodelay)
                    if number:
                        tell(f"{load.kind.name} x{len(load.studies)} {side.name}: {results.rates[-1]:.0f}/s")
        return series
    finally:
        if previous is not None:
            os.environ["TCP_NODELAY"] = previous
        shutil.rmtree(place, ignore_errors=True)


def _one(load: Load, side: Receiving, results: Series, *, nodelay: bool) -> None:
    load.renew()
    os.sync()
    before, before_receivers = side.usage(), side.receiver_usage()
    seconds = load.send(side.port, side.called, nodelay=nodelay)
    after_receivers = side.receiver_usage()
    results.lost += load.objects - side.settle(load.objects)
    after = side.usage()
    gigabytes = load.bytes / 1e9
    results.rates.append(load.objects / seconds)
    results.megabytes.append(load.bytes / 1e6 / seconds)
    results.cpu_per_gb.append((after.cpu_seconds - before.cpu_seconds) / gigabytes)
    results.receiver_cpu_per_gb.append((after_receivers.cpu_seconds - before_receivers.cpu_seconds) / gigabytes)
    results.peak_bytes = max(results.peak_bytes, after.peak_bytes)
    results.receiver_peak_bytes = max(results.receiver_peak_bytes, after_receivers.peak_bytes)
    side.clear()
