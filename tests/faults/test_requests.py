"""Inference requests while processes, their source, and the platform are killed or away: one job each, no more."""

import itertools
import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from protocol.killpoints import POINTS
from tests.faults.test_platform_away import away
from tests.faults.victims import QUICK, Points, Victims
from tests.gateway import Gateway
from tests.http_peers import Proxy
from tests.inference import (
    PASSWORD,
    USER,
    assert_same,
    body,
    by_study,
    dimse,
    fill,
    names,
    orthanc_web,
    payload,
    status,
    study_with,
    submit,
    wait_succeeded,
)
from tests.peers import free_port, orthanc, wait_for

_POINTS = tuple(point for point in POINTS if point.startswith("retriever.") or "request" in point)
_SAMPLE = (
    ("retriever.job-created", "kill"),
    ("retriever.named", "kill"),
    ("submitter.request-job-created", "kill"),
    ("retriever.completed", "hang"),
)


class Requests:
    """A gateway with kill points, and an Orthanc that can be killed and started again.

    Args:
        directory: of the test.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.points = Points(directory / "points")
        place = directory / "gateway"
        place.mkdir()
        port = free_port()
        settings = {"dicom.scp.port": port, "dicom.scu.aeTitle": "ADAPTER"}
        self.gateway = Gateway(place, settings, environ={**QUICK, **self.points.environ})
        self.victims = Victims(self.gateway)
        self.ports = {"http": free_port(), "dicom": free_port()}
        self._modality = ["ADAPTER", "127.0.0.1", port]
        self.kept = directory / "kept"
        self.pipeline = ""
        self._orthanc = ExitStack()
        self.pid = 0

    def __enter__(self) -> "Requests":
        self.start_orthanc()
        self.gateway.__enter__()
        script = self._directory / "keep.py"
        script.write_text(
            "import os, pathlib, shutil, sys\n"
            f"kept = pathlib.Path({str(self.kept)!r}) / os.environ['JOB_ID']\n"
            "shutil.copytree(sys.argv[1], kept, copy_function=shutil.copyfile, dirs_exist_ok=True)\n"
        )
        self.pipeline = self.gateway.add_pipeline("keep", [sys.executable, str(script), "{input}"])
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            self.gateway.__exit__(*error)
        finally:
            self._orthanc.close()

    def start_orthanc(self) -> None:
        self.pid = self._orthanc.enter_context(
            orthanc(
                self._directory / "orthanc",
                users={USER: PASSWORD},
                ports=self.ports,
                DicomModalities={"us": self._modality},
                DicomAlwaysAllowFind=True,
                DicomAlwaysAllowMove=True,
                DicomAlwaysAllowGet=True,
            )
        )["pid"]

    def kill_orthanc(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self._orthanc.close()
        self._orthanc = ExitStack()

    def on_disk(self, job_id: str) -> set[str]:
        """SOP Instance UIDs of what was retrieved for a job."""
        return {path.stem for path in (self.gateway.spool / "requests" / job_id / "dcm").glob("*.dcm")}

    def count(self, table: str) -> int:
        with closing(sqlite3.connect(f"file:{self.gateway.ledger}?mode=ro", uri=True, timeout=10.0)) as ledger:
            return int(ledger.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


@pytest.fixture
def requests(tmp_path: Path) -> Iterator[Requests]:
    with Requests(tmp_path) as running:
        yield running


def test_retriever_and_orthanc_killed_in_the_middle(requests: Requests, tmp_path: Path) -> None:
    """The request completes, and nothing that was on disk is asked for again, as a proxy has seen."""
    study = study_with(tmp_path / "study", "PAT-KILLED", 40, rows=512)
    fill(requests.ports["dicom"], study)
    reached, go_on = threading.Event(), threading.Event()

    def stop(path: str, sent: int) -> bool:
        """In the middle of the study, wait for the murders, and then break the connection."""
        if sent < 9_000_000 or go_on.is_set():
            return False
        reached.set()
        return go_on.wait(60.0)

    with Proxy(f"http://127.0.0.1:{requests.ports['http']}", stop) as proxy:
        submit(requests.gateway, body("MIDDLE", requests.pipeline, [by_study(study.uid)], [orthanc_web(proxy.port)]))
        job_id = str(requests.gateway.jobs(source="MIDDLE")[0]["jobId"])
        assert reached.wait(30.0)
        wait_for(lambda: len(requests.on_disk(job_id)) > 10, 10.0, "some instances on disk")
        (retriever,) = requests.gateway.pids("retriever")
        requests.victims.kill(retriever)
        requests.kill_orthanc()
        on_disk = requests.on_disk(job_id)
        before = proxy.take()
        assert any(asked.path.endswith(f"/studies/{study.uid}") for asked in before)
        go_on.set()
        requests.start_orthanc()
        wait_succeeded(requests.gateway, "MIDDLE", 90.0)
        after = [asked.path for asked in proxy.take()]
    fetched = [path.rpartition("/")[2] for path in after if "/instances/" in path]
    assert not [path for path in after if path.endswith((f"/studies/{study.uid}", "/series"))]
    assert set(fetched) == set(study.files) - on_disk
    assert len(fetched) == len(set(fetched))
    assert 10 < len(on_disk) < 40
    print(f"{len(on_disk)} of 40 instances were on disk at the kill; {len(fetched)} were fetched afterwards")
    assert payload(requests.kept / job_id) == names(study)
    assert_same(requests.kept / job_id, study)


def visit(requests: Requests, tmp_path: Path, entries: Sequence[tuple[str, str]]) -> None:
    """At each point a process is killed or hung while a request goes its way: it ends as one job with all its files."""
    study = study_with(tmp_path / "study", "PAT-POINTS", 5, series=2)
    fill(requests.ports["dicom"], study)
    web, move = orthanc_web(requests.ports["http"]), dimse(requests.ports["dicom"])
    for (point, action), source in zip(entries, itertools.cycle((web, move)), strict=False):
        transaction = f"{point} {action}"
        requests.points.arm(point, action)
        request = body(transaction, requests.pipeline, [by_study(study.uid)], [source])
        accept(requests, request, point)
        job = wait_succeeded(requests.gateway, transaction, 90.0)
        requests.gateway.wait_for(
            lambda point=point: requests.points.taken(point), 30.0, f"process that reaches {point}"
        )
        assert len(requests.gateway.jobs(source=transaction)) == 1
        assert payload(requests.kept / str(job["jobId"])) == names(study)
        assert status(requests.gateway, transaction)["dicom"]["status"] == "Success"
        requests.gateway.wait_ready(60.0)
    requests.gateway.wait_for(lambda: not requests.count("withdrawal"), 60.0, "platform that knows what was withdrawn")


def accept(requests: Requests, request: dict[str, Any], point: str) -> None:
    """Submit until it is accepted, as a requester does that was told 503 or heard nothing."""

    def accepted() -> bool:
        answer = requests.gateway.rest.post("/api/inference", json=request)
        assert answer.status_code in (200, 503), (point, answer.status_code, answer.text)
        return answer.status_code == 200

    requests.gateway.wait_for(accepted, 120.0, f"acceptance with a process that ends at {point}")


def test_a_process_killed_on_the_way_changes_nothing(requests: Requests, tmp_path: Path) -> None:
    visit(requests, tmp_path, _SAMPLE)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("action", ["kill", "hang"])
def test_every_point(requests: Requests, tmp_path: Path, action: str) -> None:
    visit(requests, tmp_path, [(point, action) for point in _POINTS if point != "retriever.withdrawn"])


def test_a_platform_that_does_not_answer_is_503_and_nothing_is_kept(requests: Requests, tmp_path: Path) -> None:
    study = study_with(tmp_path / "study", "PAT-AWAY", 2)
    fill(requests.ports["dicom"], study)
    source = orthanc_web(requests.ports["http"])
    request = body("AWAY", requests.pipeline, [by_study(study.uid)], [source])
    requests.points.arm("retriever.withdrawn", "kill")
    with away(SimpleNamespace(gateway=requests.gateway, victims=requests.victims)):  # type: ignore[arg-type]
        refused = requests.gateway.rest.post("/api/inference", json=request, timeout=60.0)
        assert refused.status_code == 503, refused.text
        assert int(refused.headers["retry-after"]) > 0
        assert requests.gateway.jobs() == []
        assert requests.gateway.rest.get("/api/inference/status/AWAY").status_code == 404
        assert (requests.count("inference_request"), requests.count("job"), requests.count("submission")) == (0, 0, 0)
    requests.gateway.wait_ready(60.0)
    accept(requests, request, "retriever.withdrawn")
    job = wait_succeeded(requests.gateway, "AWAY", 60.0)
    assert payload(requests.kept / str(job["jobId"])) == names(study)
    requests.gateway.wait_for(lambda: not requests.count("withdrawal"), 60.0, "platform that knows what was withdrawn")
    assert len(requests.gateway.jobs()) == 1
    wrong = body("NO-PIPELINE", "nobody-s", [by_study(study.uid)], [source])
    answer = requests.gateway.rest.post("/api/inference", json=wrong)
    assert answer.status_code == 422, answer.text
    assert "nobody-s" in answer.json()["errors"][0]
