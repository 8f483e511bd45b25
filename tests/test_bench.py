"""The bench's own arithmetic: paired ratios, renewed objects, plots, and what it says of the machine."""

import os
from pathlib import Path
from xml.etree import ElementTree as ET

import pydicom

from bench import plot, report
from bench.load import SMALL, Load
from bench.place import Place
from bench.receive import REFERENCE, Series
from bench.usage import MemoryWatch, cpu_seconds, tree


def _series(name: str, rates: list[float]) -> Series:
    return Series(name, rates, [1.0] * len(rates), [2.0] * len(rates), [1.5] * len(rates))


def test_ratios_are_paired_round_by_round() -> None:
    """A machine that is slow in some rounds changes both sides' rates, and not their ratio."""
    ours, theirs = _series("gateway", [90.0, 9.0, 900.0]), _series(REFERENCE, [100.0, 10.0, 1000.0])
    assert ours.ratio_to(theirs) == 0.9


def test_a_table_shows_median_minimum_maximum_ratio_and_loss() -> None:
    """The row of a side that lost something says so."""
    ours = _series("gateway", [90.0, 9.0, 900.0])
    ours.lost = 3
    text = report.comparison("title", [ours, _series(REFERENCE, [100.0, 10.0, 1000.0])])
    row = next(line for line in text.splitlines() if line.startswith("| gateway"))
    assert "90 (9-900)" in row
    assert "0.90" in row
    assert row.endswith("| 3 |")


def test_every_round_sends_other_instances(tmp_path: Path) -> None:
    """Objects that are renewed have UIDs of their own, the same in dataset and file meta group, in one study each."""
    load = Load(tmp_path, SMALL, 2, 3)
    seen: set[str] = set()
    for _ in range(2):
        load.renew()
        for study in load.studies:
            files = [pydicom.dcmread(path) for path in study.files.values()]
            assert len({file.StudyInstanceUID for file in files}) == 1
            assert all(file.file_meta.MediaStorageSOPInstanceUID == file.SOPInstanceUID for file in files)
            seen |= {str(file.SOPInstanceUID) for file in files}
    assert len(seen) == 12


def test_plots_are_svg() -> None:
    """Both kinds parse, and hold what they show."""
    for drawing in (
        plot.bars("bars", [("CT", {"gateway": 0.9, "nobody": 0.0})]),
        plot.curves("curve", "x", "y", {"gateway": [(1.0, 2.0), (10.0, 3.0)]}, logarithmic=True),
        plot.curves("point", "x", "y", {"gateway": [(1.0, 0.0)]}),
    ):
        root = ET.fromstring(drawing)  # our own text
        assert root.tag.endswith("svg")
        assert "gateway" in "".join(root.itertext())


def test_usage_counts_this_process() -> None:
    """CPU time grows with work, and memory is seen."""
    me = os.getpid()
    before = cpu_seconds([me])
    with MemoryWatch(lambda: tree(me)) as watch:
        while cpu_seconds([me]) < before + 0.3:
            sum(range(10_000))
    assert watch.peak_bytes > 0


def test_the_machine_is_described() -> None:
    """Cores, kernel, file system and DCMTK's version."""
    text = report.machine()
    assert "cores of" in text
    assert "Linux" in text
    assert "DCMTK" in text


def test_rounds_end_in_time_but_two_are_counted(tmp_path: Path) -> None:
    """One warms up; on a machine that is too slow for all of them there are fewer, and that is told."""
    told: list[str] = []
    assert list(Place(tmp_path, tmp_path, 4, 60.0, told.append).turns()) == [0, 1, 2, 3, 4]
    assert not told
    assert list(Place(tmp_path, tmp_path, 4, 0.0, told.append).turns()) == [0, 1, 2]
    assert "2 of 4 rounds" in told[0]
