"""Results on their way out while processes are killed and hung: each destination gets each file, by one task."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest

from protocol.killpoints import POINTS
from tests.faults.victims import QUICK, Points, Victims
from tests.gateway import Gateway
from tests.peers import storescp, storescu
from tests.samples import dataset_bytes, make_study
from tests.test_exports import COPYING, received

OBJECTS = 5
# What was exported is freed after a day, or when intake is paused: its point has a test of its own. Nobody is told of
# embedded tasks: the exporter's own tests, which have a results service, kill it where that is told.
_TOLD = "exporter.reported"
_POINTS = tuple(
    point
    for point in POINTS
    if (point.startswith("exporter.") and point != _TOLD) or point == "platform.results-announced"
)
_SAMPLE = (("platform.results-announced", "kill"), ("exporter.answered", "kill"), ("exporter.task-begun", "hang"))


def visit(directory: Path, entries: Sequence[tuple[str, str]]) -> None:
    """At each point a process ends, or hangs, while a study's results are exported."""
    points, place = Points(directory / "points"), directory / "gateway"
    place.mkdir()
    with (
        storescp(directory / "pacs") as pacs,
        Gateway(place, environ={**QUICK, **points.environ}) as gateway,
    ):
        victims = Victims(gateway)
        gateway.add_destination("MYPACS", pacs.port)
        gateway.add_source("MODALITY")
        gateway.add_aetitle("EXPORTS", pipeline_copying=gateway.add_pipeline("copying", COPYING, exports=["MYPACS"]))
        for number, (point, action) in zip(itertools.count(1), entries, strict=False):
            study = make_study(directory / f"study-{number}", f"PAT-E{number}", OBJECTS, rows=32, modality="MR")
            points.arm(point, action)
            assert storescu(gateway.port, study.directory, called="EXPORTS", calling="MODALITY").successes == OBJECTS
            gateway.wait_for(lambda point=point: points.taken(point), 90.0, f"process that reaches {point}")
            pid = points.taken(point)
            assert pid is not None
            kind = point.partition(".")[0]
            gateway.wait_for(
                lambda pid=pid, kind=kind: pid not in victims.pids(kind) and gateway.running(),
                90.0,
                f"successor of process {pid}, which did {action} at {point}",
            )
            gateway.wait_for(
                lambda number=number: [task["state"] for task in gateway.exports()] == ["Succeeded"] * number,
                90.0,
                f"{number} exports that succeeded",
            )
            there = received(directory / "pacs")
            assert there.keys() >= study.files.keys()
            for uid, path in study.files.items():
                assert dataset_bytes(there[uid]) == dataset_bytes(path)
        assert len(gateway.jobs()) == len(gateway.exports()) == len(entries)
        assert all(task["delivered"] == task["files"] == OBJECTS for task in gateway.exports())
    print(f"exports: {len(entries)} entries, each destination has all {OBJECTS} files of each study")


def test_a_sample(tmp_path: Path) -> None:
    visit(tmp_path, _SAMPLE)


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("action", ["kill", "hang"])
def test_every_point(tmp_path: Path, action: str) -> None:
    visit(tmp_path, [(point, action) for point in _POINTS])


@pytest.mark.soak
def test_freed_in_spite_of_a_kill(tmp_path: Path) -> None:
    """Without room what was exported is deleted; a kill before its rows are gone costs a repetition."""
    points, place = Points(tmp_path / "points"), tmp_path / "gateway"
    place.mkdir()
    with storescp(tmp_path / "pacs") as pacs, Gateway(place, environ={**QUICK, **points.environ}) as gateway:
        gateway.add_destination("MYPACS", pacs.port)
        gateway.add_source("MODALITY")
        gateway.add_aetitle("EXPORTS", pipeline_copying=gateway.add_pipeline("copying", COPYING, exports=["MYPACS"]))
        study = make_study(tmp_path / "study", "PAT-FREED", OBJECTS, rows=32, modality="MR")
        assert storescu(gateway.port, study.directory, called="EXPORTS", calling="MODALITY").successes == OBJECTS
        gateway.wait_for(
            lambda: [task["state"] for task in gateway.exports()] == ["Succeeded"], 90.0, "an export that succeeded"
        )
        (home,) = [path for path in (gateway.spool / "platform").iterdir() if (path / "runs").exists()]
        points.arm("platform.results-freed", "kill")
        gateway.settings["storage.reserveSpaceGB"] = 1_000_000
        gateway.reload()
        gateway.wait_for(lambda: points.taken("platform.results-freed"), 120.0, "a platform that frees results")
        assert not home.exists()
        gateway.wait_ready(90.0)
        gateway.settings["storage.reserveSpaceGB"] = 0
        gateway.reload()
        gateway.wait_ready(90.0)
        assert [task["state"] for task in gateway.exports()] == ["Succeeded"]
        assert len(received(tmp_path / "pacs")) == OBJECTS
