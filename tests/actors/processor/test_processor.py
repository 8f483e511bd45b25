"""The processor as a process: real files, a real ledger, and a test that plays its neighbours."""

import re
import time

import pytest

from tests.actors.processor.world import Association, World


def test_two_ae_titles_make_four_and_four_jobs(world: World) -> None:
    """By study with one pipeline, and by patient with two: two patients with two studies each, sent to both."""
    world.add_ae_title("Clara1", 0.5, pipeline_one="id-1")
    world.add_ae_title(
        "Clara2", 0.7, groupBy="0010,0020", priority="Higher", pipeline_two="id-2", pipeline_three="id-3"
    )
    world.start()
    for ae_title in ("Clara1", "Clara2"):
        for patient in ("A", "B"):
            for study in ("1", "2"):
                association = Association(world, ae_title)
                instances = [association.store(f"1.2.{ord(patient)}.{study}", patient=patient) for _ in range(3)]
                world.describe(*instances)
    announced = world.announced(8)
    jobs = world.jobs()
    assert {job["job_id"] for job in jobs} == announced
    first = [job for job in jobs if job["ae_title"] == "Clara1"]
    second = [job for job in jobs if job["ae_title"] == "Clara2"]
    assert [(job["pipeline_id"], job["instances"], job["priority"]) for job in first] == [("id-1", 3, "normal")] * 4
    assert sorted((job["pipeline_id"], job["instances"], job["priority"]) for job in second) == [
        ("id-2", 6, "higher"),
        ("id-2", 6, "higher"),
        ("id-3", 6, "higher"),
        ("id-3", 6, "higher"),
    ]
    assert {job["source"] for job in jobs} == {
        "Clara1 (AE Title Job Processor)",
        "Clara2 (AE Title Job Processor)",
    }
    assert all(re.fullmatch(r"clara[12]-(one|two|three)-\d{14}", job["name"]) for job in jobs)
    assert {group["state"] for group in world.groups()} == {"Closed"}
