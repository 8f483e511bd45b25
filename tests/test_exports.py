"""Results out, on the whole gateway: senders, an embedded pipeline that makes DICOM, DCMTK's storescp, Orthanc."""

import json
import sys
from pathlib import Path

import httpx
import pydicom

from tests.gateway import Gateway
from tests.peers import orthanc, storescp, storescu
from tests.samples import dataset_bytes, make_study

_COPYING = """
import os, shutil
n = 0
for directory, _, names in os.walk(os.environ["INPUT_DIR"]):
    for name in sorted(names):
        n += 1
        shutil.copyfile(os.path.join(directory, name), os.path.join(os.environ["OUTPUT_DIR"], f"result-{n:03d}.dcm"))
with open(os.path.join(os.environ["OUTPUT_DIR"], "report.json"), "w") as report:
    report.write("{}")
"""
COPYING = [sys.executable, "-c", _COPYING]


def received(directory: Path) -> dict[str, Path]:
    """What a storescp has, by SOP Instance UID."""
    return {str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID): path for path in directory.iterdir()}


def test_the_whole_circle(gateway: Gateway, tmp_path: Path) -> None:
    """A study comes in, results go to storescp and, by STOW, to Orthanc; the datasets are equal, and trace shows it."""
    study = make_study(tmp_path / "ct", "PAT-CIRCLE", 12)
    with storescp(tmp_path / "pacs") as pacs, orthanc(tmp_path / "orthanc") as web:
        url = f"http://127.0.0.1:{web['http']}/dicom-web"
        gateway.add_destination("MYPACS", pacs.port)
        pipeline = gateway.add_pipeline("copying", COPYING, exports=["mypacs", f"dicomweb:{url}"])
        gateway.add_source("MODALITY")
        gateway.add_aetitle("CIRCLE", pipeline_copying=pipeline)
        assert storescu(gateway.port, study.directory, called="CIRCLE", calling="MODALITY").successes == 12
        gateway.wait_for(
            lambda: len(tasks := gateway.exports()) == 2 and all(task["state"] == "Succeeded" for task in tasks),
            60.0,
            "two exports that succeeded",
        )
        listed = json.loads(gateway.cli("exports", "list", "--json").stdout)
        assert {task["destination"] for task in listed} == {"MYPACS", url}
        assert {(task["files"], task["delivered"], task["failed"], task["retries"]) for task in listed} == {
            (12, 12, 0, 0)
        }
        found = received(tmp_path / "pacs")
        assert found.keys() == study.files.keys()
        for uid, path in found.items():
            assert dataset_bytes(path) == dataset_bytes(study.files[uid])
        rest = httpx.Client(base_url=f"http://127.0.0.1:{web['http']}")
        there = {
            rest.get(f"/instances/{one}/tags?simplify").json()["SOPInstanceUID"]: one
            for one in rest.get("/instances").json()
        }
        assert there.keys() == study.files.keys()
        told = gateway.cli("trace", study.uid).stdout
        assert "12 files delivered to MYPACS" in told
        assert f"12 files delivered to {url}" in told
