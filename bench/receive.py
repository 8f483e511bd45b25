"""Receiving: objects a second, CPU and memory, ours and the peers' in interleaved rounds."""

import contextlib
import functools
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench import receivers
from bench.load import Kind, Load
from bench.place import Place
from bench.receivers import Receiving, Start
from bench.usage import MemoryWatch

REFERENCE = "storescp --fork"


@dataclass
class Series:
    """All rounds of one receiving side with one load; what is of a whole round is in the order of the rounds."""

    name: str
    rates: list[float] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)
    cpu_per_gb: list[float] = field(default_factory=list)
    receivers_cpu_per_gb: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    receiver_peak_bytes: int = 0
    lost: int = 0

    def ratio_to(self, other: "Series") -> float:
        """The median of the rounds' ratios of rates."""
        return statistics.median(mine / theirs for mine, theirs in zip(self.rates, other.rates, strict=True))


def gateways() -> list[Start]:
    """Ours, without and with syncs."""
    return [functools.partial(receivers.gateway, sync=sync) for sync in (False, True)]


def matrix_row(place: Place, kind: Kind, associations: int, *, nagle: bool, peers: bool, objects: int) -> list[Series]:
    """One comparison of the gateway, twice, with storescp, and with slower peers too.

    Args:
        place: where, and how many rounds.
        kind: of objects.
        associations: how many send at once.
        nagle: leave Nagle's algorithm on, at the senders' and at storescp's end, as DCMTK comes.
        peers: Orthanc and pynetdicom too.
        objects: how many each association sends; 0 is the kind's own number.
    """
    each = objects or max(kind.objects * 4 // max(4, associations), 2)
    sides: list[Start] = [*gateways(), functools.partial(receivers.storescp, nodelay=not nagle)]
    sides += [receivers.disk] if not nagle else []
    sides += [receivers.orthanc, receivers.pynetdicom] if peers else []
    slow = {REFERENCE: min(1.0, kind.with_nagle / each)} if nagle else {}
    with place.in_memory() as memory:
        return compare(place, Load(memory, kind, associations, each), sides, nodelay=not nagle, shares=slow)


def compare(
    place: Place, load: Load, sides: Sequence[Start], *, nodelay: bool = True, shares: dict[str, float] | None = None
) -> list[Series]:
    """Measure the sides in turn, round after round; the first round warms up and is not counted.

    Args:
        place: where, and how many rounds.
        load: what is sent.
        sides: what receives.
        nodelay: the senders' Nagle's algorithm off.
        shares: of the objects, for sides that are slow with this load.
    """
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(start(place.on_disk())) for start in sides]
        series = {side.name: Series(side.name) for side in running}
        for number in place.turns():
            results = series if number else {side.name: Series(side.name) for side in running}
            # Whoever comes second finds the machine as the first one left it: they take turns in that too.
            order = running if number % 2 else running[::-1]
            for group in _together(order):
                _one_round(load, group, results, nodelay=nodelay, shares=shares or {})
            if number:
                rates = ", ".join(f"{name} {one.rates[-1]:.0f}/s" for name, one in series.items())
                place.tell(f"{load.kind.name} x{len(load.studies)}: {rates}")
        for side in running:
            series[side.name].receiver_peak_bytes = side.receiver_peak_bytes()
    return list(series.values())


def _together(order: Sequence[Receiving]) -> list[list[Receiving]]:
    """Gateways wait for the quiet behind their bursts together."""
    ours: list[Receiving] = [side for side in order if isinstance(side, receivers.WholeGateway)]
    others = [[side] for side in order if not isinstance(side, receivers.WholeGateway)]
    if not ours:
        return others
    return [ours, *others] if order[0] in ours else [*others, ours]


def _one_round(
    load: Load, group: Sequence[Receiving], results: dict[str, Series], *, nodelay: bool, shares: dict[str, float]
) -> None:
    before, sent = {}, {}
    for side in group:
        each = max(1, round(load.each * shares.get(side.name, side.share)))
        load.renew()
        os.sync()
        before[side.name], receivers_before = side.cpu_seconds(), side.receivers_cpu_seconds()
        with MemoryWatch(side.pids) as memory:
            seconds = side.burst(load, each=each, nodelay=nodelay)
        objects = sent[side.name] = each * len(load.studies)
        count = objects * load.object_bytes
        one = results[side.name]
        one.rates.append(objects / seconds)
        one.megabytes.append(count / 1e6 / seconds)
        one.receivers_cpu_per_gb.append((side.receivers_cpu_seconds() - receivers_before) / (count / 1e9))
        one.peak_bytes = max(one.peak_bytes, memory.peak_bytes)
        side.calm(objects)
    for side in group:
        one, objects = results[side.name], sent[side.name]
        one.lost += objects - side.settle(objects)
        gigabytes = objects * load.object_bytes / 1e9
        one.cpu_per_gb.append((side.cpu_seconds() - before[side.name]) / gigabytes)
        side.empty()
