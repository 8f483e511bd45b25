"""Describing: instances a second through one extractor process, beside pydicom reading the same headers."""

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pydicom

from bench.place import Place
from bench.report import Section
from bench.usage import cpu_seconds
from protocol import clock
from protocol.bus import Bus
from protocol.channels import DESCRIPTIONS, INSTANCES
from protocol.messages import InstancesDescribed, InstancesStored, StoredInstance
from tests.actors.launcher import Launcher
from tests.samples import dataset_bytes, make_study

HEADER_BYTES = (2_000, 20_000)
_INSTANCES = 4_000
_FOR_PYDICOM = 1_000  # it is slower, and as steady
_MESSAGE = 20  # instances, about what a busy receiver tells at once
_PIXEL_DATA_HEADER = 12
_SHARD = "20240101T000000-receiver_00000000-0001"
_KEPT = (0x0008, 0x0010, 0x0018, 0x0020, 0x0028, 0x7FE0)  # groups of a plain CT header


@dataclass
class Rates:
    """Instances a second and CPU time an instance in µs, round by round, with headers of one size."""

    header_bytes: int
    extractor: list[float] = field(default_factory=list)
    pydicom: list[float] = field(default_factory=list)
    extractor_cpu_us: list[float] = field(default_factory=list)
    pydicom_cpu_us: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """The median of the rounds' ratios."""
        return statistics.median(ours / theirs for ours, theirs in zip(self.extractor, self.pydicom, strict=True))


def measure(place: Place) -> Section:
    """The part of the bench."""
    return Section("extract", "Describing", [table(compare(place.rounds, place.tell))])


def compare(rounds: int, tell: Callable[[str], None]) -> list[Rates]:
    """Measure both in turn, round after round; the first round warms up and is not counted.

    Args:
        rounds: counted rounds.
        tell: shows progress.
    """
    return [_compare(header_bytes, rounds, tell) for header_bytes in HEADER_BYTES]


def table(results: Iterable[Rates]) -> str:
    """The results in Markdown."""
    lines = [
        "## CT headers, 526 kB objects in the page cache",
        "",
        "Instances a second, and CPU time an instance, the message to the processor included:",
        "",
        "| header | one extractor process | pydicom.dcmread(stop_before_pixels=True) | ratio | CPU µs | of pydicom |",
        "|---|---|---|---|---|---|",
    ]
    for rates in results:
        ours, theirs = _spread(rates.extractor), _spread(rates.pydicom)
        cpu = [f"{statistics.median(values):.0f}" for values in (rates.extractor_cpu_us, rates.pydicom_cpu_us)]
        lines.append(
            f"| {rates.header_bytes / 1000:g} kB | {ours} | {theirs} | {rates.ratio:.1f} | {cpu[0]} | {cpu[1]} |"
        )
    return "\n".join([*lines, ""])


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.0f} ({min(values):.0f}-{max(values):.0f})"


def _compare(header_bytes: int, rounds: int, tell: Callable[[str], None]) -> Rates:
    place = Path(tempfile.mkdtemp(prefix="bench-", dir=os.environ.get("BENCH_DIRECTORY")))
    rates = Rates(header_bytes)
    try:
        with Launcher(place) as launcher:
            names = _fill(launcher.spool.instances / _SHARD, place, header_bytes)
            paths = [launcher.spool.instance_path(name) for name in names]
            bus = Bus(launcher.runtime, launcher.settings)
            try:
                neighbours = _Neighbours(bus)
                pid = launcher.start("extractor-1").pid
                for number in range(rounds + 1):
                    _round(rates if number else Rates(header_bytes), neighbours, pid, names, paths[:_FOR_PYDICOM])
                    if number:
                        ours, theirs = rates.extractor[-1], rates.pydicom[-1]
                        tell(f"{header_bytes} bytes: extractor {ours:.0f}/s, pydicom {theirs:.0f}/s")
            finally:
                bus.close()
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return rates


class _Neighbours:
    """The receiver's and the processor's ends of the bus."""

    def __init__(self, bus: Bus) -> None:
        self._described = bus.receiver(DESCRIPTIONS, "processor")
        self._stored = bus.sender(INSTANCES)

    def rate(self, names: list[str]) -> float:
        """Have all of them described once."""
        batches = [
            InstancesStored(instances=tuple(StoredInstance(name, clock.now()) for name in names[at : at + _MESSAGE]))
            for at in range(0, len(names), _MESSAGE)
        ]
        batches.reverse()
        missing = len(names)
        start = time.monotonic()
        while missing:
            while batches and self._stored.send(batches[-1]):
                batches.pop()
            while (message := self._described.receive()) is not None:
                assert isinstance(message, InstancesDescribed)
                for instance in message.instances:
                    if instance.problem:
                        raise RuntimeError(f"an instance was not described: {instance.problem}")
                missing -= len(message.instances)
            time.sleep(0.001)
            if time.monotonic() > start + 120:
                raise RuntimeError(f"{missing} instances were not described")
        return len(names) / (time.monotonic() - start)


def _round(rates: Rates, neighbours: _Neighbours, pid: int, names: list[str], paths: list[str]) -> None:
    before = cpu_seconds([pid])
    rates.extractor.append(neighbours.rate(names))
    rates.extractor_cpu_us.append((cpu_seconds([pid]) - before) * 1e6 / len(names))
    start, before = time.monotonic(), time.process_time()
    for path in paths:
        pydicom.dcmread(path, stop_before_pixels=True)
    rates.pydicom.append(len(paths) / (time.monotonic() - start))
    rates.pydicom_cpu_us.append((time.process_time() - before) * 1e6 / len(paths))


def _fill(shard: Path, place: Path, header_bytes: int) -> list[str]:
    """Instances of a shard, most of them links to a few files; returns their identifiers."""
    shard.mkdir()
    study = make_study(place / "study", "PAT-1", 20)
    files = [_resized(path, header_bytes) for path in study.files.values()]
    names = [f"{_SHARD}/a-{number:06d}" for number in range(_INSTANCES)]
    for number, name in enumerate(names):
        os.link(files[number % len(files)], f"{shard / name.rpartition('/')[2]}.dcm")
    return names


def _resized(path: Path, header_bytes: int) -> Path:
    """A CT object with a header of so many bytes: plain elements first, then private ones as scanners write them."""
    dataset = pydicom.dcmread(path)
    for element in list(dataset):
        if element.tag.group not in _KEPT:
            del dataset[element.tag]
    dataset.file_meta.ReceivingApplicationEntityTitle = "BENCH"
    block = dataset.private_block(0x0009, "BENCH", create=True)
    number, header = 0, 0
    while header < header_bytes:
        block.add_new(number % 256, "LO", f"private element number {number:06d}".ljust(60, "."))
        number += 1
        if number % 256 == 0:
            block = dataset.private_block(0x0009 + number // 128, "BENCH", create=True)
        if number % 16 == 0 or header + 600 > header_bytes:
            dataset.save_as(path, enforce_file_format=True)
            header = len(dataset_bytes(path)) - len(dataset.PixelData) - _PIXEL_DATA_HEADER
    return path
