"""A REST Results Service of the tests' own, shaped as Clara's: tasks, and the reports that it was given."""

import json
import threading
import uuid
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


class ResultsService:
    """Serves until the block ends. A task that failed with a retry is offered again, with one retry more."""

    def __init__(self) -> None:
        self.reports: list[tuple[str, str]] = []
        self.polls = 0
        self.broken = False
        self._tasks: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                service._answer(self, service._pending(self.path))

            def do_PUT(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                service._answer(self, service._report(self.path, self.rfile.read(length)))

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> "ResultsService":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add(
        self,
        payload_id: str,
        uris: Sequence[str],
        parameters: str,
        *,
        agent: str = "ClaraSCU",
        job_id: str = "",
        retries: int = 0,
    ) -> str:
        """A task that waits."""
        task_id = str(uuid.uuid4())
        task = {
            "taskId": task_id,
            "jobId": job_id,
            "payloadId": payload_id,
            "pipelineId": "",
            "agent": agent,
            "parameters": parameters,
            "state": "Pending",
            "retries": retries,
            "uris": list(uris),
        }
        with self._lock:
            self._tasks[task_id] = task
        return task_id

    def reported(self, task_id: str) -> list[str]:
        """What was told of a task, in order: success, failure, retry."""
        with self._lock:
            return [what for each, what in self.reports if each == task_id]

    def _pending(self, path: str) -> list[dict[str, Any]] | None:
        parts = urlsplit(path)
        agent = unquote(parts.path.split("/")[3])
        size = int(parse_qs(parts.query)["size"][0])
        with self._lock:
            self.polls += 1
            found = [task for task in self._tasks.values() if task["agent"] == agent and task["state"] == "Pending"]
        return None if self.broken else found[:size]

    def _report(self, path: str, body: bytes) -> dict[str, Any] | None:
        if self.broken:
            return None
        _, _, _, what, task_id = path.split("/")
        with self._lock:
            task = self._tasks[task_id]
            if what == "failure" and json.loads(body)["RetryLater"]:
                what = "retry"
                task["retries"] += 1
            else:
                task["state"] = "Succeeded" if what == "success" else "Failed"
            self.reports.append((task_id, what))
        return {}

    @staticmethod
    def _answer(handler: BaseHTTPRequestHandler, value: object) -> None:
        body = json.dumps(value).encode()
        handler.send_response(200 if value is not None else 503)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)
