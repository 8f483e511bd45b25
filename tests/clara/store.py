"""What the platform for tests remembers: a JSON file a job and a pipeline, a directory a payload."""

import json
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from protocol.platforms.clara.generated import jobs_pb2

YEAR_ONE_SECONDS = 62_135_596_800
KEY_BYTES = 128
VALUE_BYTES = 256


class ForbiddenError(Exception):
    """The platform refuses; `code` is the name of a gRPC status."""

    def __init__(self, code: str, words: str) -> None:
        super().__init__(words)
        self.code = code


class Store:
    """Jobs, payloads and pipelines below a directory; they outlive the server.

    Args:
        root: the directory.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = threading.RLock()
        for name in ("jobs", "payloads", "pipelines"):
            (root / name).mkdir(parents=True, exist_ok=True)

    def add_pipeline(self, name: str, pipeline_id: str = "") -> str:
        """Register a pipeline."""
        pipeline_id = pipeline_id or uuid.uuid4().hex
        (self.root / "pipelines" / pipeline_id).write_text(name)
        return pipeline_id

    def pipelines(self) -> dict[str, str]:
        """Names by identifier."""
        return {path.name: path.read_text() for path in (self.root / "pipelines").iterdir()}

    # Jobs.

    def create_job(self, name: str, pipeline_id: str, priority: int, metadata: dict[str, str]) -> dict[str, Any]:
        """Create a job and its payload."""
        if pipeline_id not in self.pipelines():
            raise ForbiddenError("NOT_FOUND", "no such pipeline")
        if not 1 <= len(name) <= 63 or priority not in (1, 2, 3, 4):
            raise ForbiddenError("INVALID_ARGUMENT", "name or priority")
        _check_metadata({}, metadata)
        job = {
            "job_id": uuid.uuid4().hex,
            "payload_id": uuid.uuid4().hex,
            "pipeline_id": pipeline_id,
            "name": name,
            "priority": priority,
            "metadata": metadata,
            "state": jobs_pb2.JOB_STATE_PENDING,
            "status": jobs_pb2.JOB_STATUS_HEALTHY,
            "created": _now(),
            "started": 0,
            "stopped": 0,
        }
        (self.root / "payloads" / job["payload_id"]).mkdir()
        self._write(job)
        return job

    def job(self, job_id: str) -> dict[str, Any]:
        """A job by its identifier."""
        path = self.root / "jobs" / job_id
        if "/" in job_id or not path.is_file():
            raise ForbiddenError("NOT_FOUND", "no such job")
        with self._lock:
            found: dict[str, Any] = json.loads(path.read_text())
        return found

    def jobs(self) -> list[dict[str, Any]]:
        """All jobs, the oldest first."""
        found = [self.job(path.name) for path in (self.root / "jobs").iterdir()]
        return sorted(found, key=lambda job: (job["created"], job["job_id"]))

    def add_metadata(self, job_id: str, metadata: dict[str, str]) -> dict[str, str]:
        """Add metadata, all or none."""
        with self._lock:
            job = self.job(job_id)
            _check_metadata(job["metadata"], metadata)
            job["metadata"] |= metadata
            self._write(job)
        added: dict[str, str] = job["metadata"]
        return added

    def start(self, job_id: str) -> dict[str, Any]:
        """Start a job, once."""
        with self._lock:
            job = self.job(job_id)
            if job["state"] != jobs_pb2.JOB_STATE_PENDING or job["started"]:
                raise ForbiddenError("FAILED_PRECONDITION", "it was started or canceled")
            return self._write({**job, "state": jobs_pb2.JOB_STATE_RUNNING, "started": _now()})

    def stop(self, job_id: str, status: int) -> dict[str, Any]:
        """End a job."""
        with self._lock:
            job = self.job(job_id)
            return self._write({**job, "state": jobs_pb2.JOB_STATE_STOPPED, "status": status, "stopped": _now()})

    def _write(self, job: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            (self.root / "jobs" / job["job_id"]).write_text(json.dumps(job))
        return job

    # Payloads.

    def payload(self, payload_id: str) -> Path:
        """A payload's directory."""
        path = self.root / "payloads" / payload_id
        if not payload_id or "/" in payload_id or not path.is_dir():
            raise ForbiddenError("NOT_FOUND", "no such payload")
        return path

    def blobs(self, payload_id: str) -> dict[str, Path]:
        """Files of a payload by name."""
        root = self.payload(payload_id)
        return {str(path.relative_to(root)): path for path in sorted(root.rglob("*")) if path.is_file()}

    def blob(self, payload_id: str, name: str) -> Path:
        """Where a file of a payload is, or would be."""
        if not name or name.startswith("/") or ".." in name.split("/"):
            raise ForbiddenError("INVALID_ARGUMENT", "name of a blob")
        return self.payload(payload_id) / name

    def check_writable(self, payload_id: str) -> None:
        """A payload whose job was started is read-only."""
        self.payload(payload_id)
        if any(job["payload_id"] == payload_id and job["started"] for job in self.jobs()):
            raise ForbiddenError("FAILED_PRECONDITION", "the payload is read-only")

    def write(self, payload_id: str, name: str, chunks: Iterator[bytes]) -> int:
        """Write a new file; what has come stays when the chunks end with an exception."""
        path = self.blob(payload_id, name)
        with self._lock:
            self.check_writable(payload_id)
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                file = path.open("xb")
            except FileExistsError:
                raise ForbiddenError("ALREADY_EXISTS", f"{name} exists") from None
        with file:
            return sum(file.write(chunk) for chunk in chunks)


def _check_metadata(there: dict[str, str], added: dict[str, str]) -> None:
    known = {name.casefold() for name in there}
    for name, value in added.items():
        if name.casefold() in known:
            raise ForbiddenError("ALREADY_EXISTS", f"metadata {name} exists, {value} was not added")
        if not name or len(name.encode()) > KEY_BYTES or len(value.encode()) > VALUE_BYTES:
            raise ForbiddenError("INVALID_ARGUMENT", f"metadata {name}={value}")
        known.add(name.casefold())


def _now() -> int:
    return int(time.time()) + YEAR_ONE_SECONDS
