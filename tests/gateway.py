"""The whole gateway for tests: the real `dicom-adapter run` as a process, on free ports, in its own directory."""

import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from protocol import control, messages
from protocol.errors import AdapterError
from tests import patients
from tests.peers import free_port, wait_for

READY_SECONDS = 30.0
_MARK = "DICOM_ADAPTER_TEST_MARK"
_RELOADED = re.compile(r"reloaded restarted=(\S+)\n")
_REPOSITORY = Path(__file__).resolve().parent.parent


class Gateway:
    """A gateway that runs while the block lasts.

    Leaving the block stops it, and fails when an unexpected exception stands in its log, or a process is left.

    Args:
        directory: for its configuration, spool, ledger and log.
        settings: changes to the configuration, by dotted path below `DicomAdapter`.
        logging: the configuration's `Logging`.
        environ: variables added to ours.
        tolerated: parts of log lines that may hold `UNEXPECTED`.
        database: URL of its ledger, when that is not the file `ledger`.
    """

    def __init__(
        self,
        directory: Path,
        settings: Mapping[str, object] | None = None,
        *,
        logging: Mapping[str, object] | None = None,
        environ: Mapping[str, str] | None = None,
        tolerated: tuple[str, ...] = (),
        database: str = "",
    ) -> None:
        self.logging = dict(logging or {})
        self.directory = directory
        self.spool = directory / "spool"
        self.ledger = directory / "ledger" / "dicomadapter.db"
        self.config = directory / "appsettings.json"
        self.log = directory / "gateway.log"
        # Sockets' paths are short, pytest's directories long.
        self.runtime = Path(tempfile.mkdtemp(prefix="dicom-adapter-"))
        self.mark = uuid.uuid4().hex
        self.process: subprocess.Popen[bytes] | None = None
        self._environ = {**os.environ, **(environ or {}), _MARK: self.mark}
        self._tolerated = tolerated
        self._database = database
        self.settings: dict[str, Any] = {
            "dicom.scp.port": free_port(),
            "dicom.scp.bind": "127.0.0.1",
            "dicom.scp.receivers": 2,
            "api.port": free_port(),
            "storage.temporary": str(self.spool),
            "storage.watermarkPercent": 100,
            "storage.reserveSpaceGB": 0,
            "services.platform.retryDelaySeconds": 1,
            "runtimeDirectory": str(self.runtime),
            **(settings or {}),
        }
        self.port = int(self.settings["dicom.scp.port"])
        self.url = f"http://127.0.0.1:{self.settings['api.port']}"
        self.rest = httpx.Client(base_url=self.url, timeout=30.0)

    # Life.

    def write_configuration(self) -> None:
        """Write `appsettings.json` from `settings`."""
        root: dict[str, Any] = {
            "DicomAdapter": {},
            "Logging": self.logging,
            "ConnectionStrings": {"DicomAdapterDatabase": self._database or f"Data Source={self.ledger}"},
        }
        for path, value in self.settings.items():
            section = root["DicomAdapter"]
            *names, last = path.split(".")
            for name in names:
                section = section.setdefault(name, {})
            section[last] = value
        self.ledger.parent.mkdir(parents=True, exist_ok=True)
        self.config.write_text(json.dumps(root, indent=1))

    def launch(self) -> None:
        """Start the process without waiting for it."""
        self.write_configuration()
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cli", "run", "--config", str(self.config)],
                cwd=_REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=self._environ,
            )

    def start(self, timeout: float = READY_SECONDS) -> "Gateway":
        """Start it, and wait until every actor runs and the API answers."""
        self.launch()
        self.wait_ready(timeout)
        return self

    def wait_ready(self, timeout: float = READY_SECONDS) -> None:
        """Wait until every actor runs."""
        self.wait_for(self.running, timeout, "gateway with all actors running")

    def running(self) -> bool:
        """Whether every actor runs now."""
        if self.process is not None and self.process.poll() is not None:
            raise AssertionError(f"the gateway ended with code {self.process.returncode}:\n{self.tail()}")
        try:
            actors = self.status().actors
        except AdapterError:
            return False
        return bool(actors) and all(actor.state == "running" for actor in actors)

    def stop(self, timeout: float = 30.0) -> int:
        """Stop it by SIGTERM, check its log and that no process is left; returns its exit code.

        Raises:
            AssertionError: it did not stop, left a process, or met what nobody expected.
        """
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the gateway did not stop in {timeout:g} s:\n{self.tail()}") from None
        self.wait_for(lambda: not self.left_over(), 15.0, f"end of all processes, but {self.left_over()}")
        self.check_log()
        return self.process.returncode

    def reload(self) -> str:
        """Write the configuration and have it read again; returns what was restarted, in the log's words."""
        self.write_configuration()
        before = len(self.log_text())
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)
        told = self.wait_for(lambda: _RELOADED.search(self.log_text(), before), 15.0, "reload of the configuration")
        return str(told[1])

    def kill_supervisor(self) -> None:
        """Kill the supervisor alone."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10.0)

    def __enter__(self) -> "Gateway":
        try:
            return self.start()
        except BaseException:
            self.clean_up()
            raise

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None and self.process is not None:
                self.stop()
        finally:
            self.clean_up()

    def clean_up(self) -> None:
        """End every process that it started, whatever state they are in, and delete the runtime directory.

        Its log is kept for the search for patient data at the end of the session.
        """
        self.rest.close()
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10.0)
        for pid in self.left_over():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.runtime, ignore_errors=True)
        patients.collect(f"gateway in {self.directory}", self.log_text())

    # Processes.

    def left_over(self) -> list[int]:
        """Living processes, pipelines among them, that descend from this gateway; the supervisor too."""
        wanted, found = f"{_MARK}={self.mark}".encode(), []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with contextlib.suppress(OSError):
                    if wanted in (entry / "environ").read_bytes().split(b"\0"):
                        found.append(int(entry.name))
        return found

    def status(self) -> messages.Status:
        """What the supervisor says."""
        return control.status(self.runtime)

    def pids(self, kind: str) -> list[int]:
        """Process IDs of the actors of a kind."""
        return [actor.pid for actor in self.status().actors if actor.kind == kind and actor.pid is not None]

    def cli(self, *words: str, check: bool = True, timeout: float = 60.0) -> "subprocess.CompletedProcess[str]":
        """Run a command of `dicom-adapter` against this gateway."""
        environ = {**os.environ, "DICOM_ADAPTER_URL": self.url, "RUNTIME_DIRECTORY": str(self.runtime)}
        ended = subprocess.run(
            [sys.executable, "-m", "cli", *words],
            cwd=_REPOSITORY,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=environ,
            check=False,
        )
        if check:
            assert ended.returncode == 0, f"{words} ended with {ended.returncode}: {ended.stdout}{ended.stderr}"
        return ended

    # Configuration by REST.

    def add_aetitle(self, ae_title: str, *, timeout: int = 5, overwrite: bool = False, **settings: str) -> None:
        """Create an AE title; the name of a pipeline setting is `pipeline_NAME`.

        Args:
            ae_title: the called AE title.
            timeout: seconds of quiet after which a group closes.
            overwrite: `overwriteSameInstance`.
            settings: further processor settings, such as `groupBy` or `pipeline_brain`.
        """
        named = {key.replace("pipeline_", "pipeline-"): value for key, value in settings.items()}
        entity = {
            "name": ae_title,
            "aeTitle": ae_title,
            "overwriteSameInstance": overwrite,
            "processorSettings": {"timeout": str(timeout), **named},
        }
        self._post("claraaetitle", entity)

    def add_source(self, ae_title: str, host: str = "127.0.0.1") -> None:
        """Create a source."""
        self._post("sourceaetitle", {"aeTitle": ae_title, "hostIp": host})

    def add_destination(self, name: str, port: int, ae_title: str = "STORESCP") -> None:
        """Create a destination on this machine."""
        self._post("destinationaetitle", {"name": name, "aeTitle": ae_title, "hostIp": "127.0.0.1", "port": port})

    def add_pipeline(
        self, name: str, command: list[str], *, timeout: int = 60, user: str = "", exports: Sequence[str] = ()
    ) -> str:
        """Register a command with the embedded platform; returns the pipeline's ID."""
        entity = {"name": name, "command": command, "timeoutSeconds": timeout, "user": user, "exports": [*exports]}
        return str(self._post("pipeline", entity)["pipelineId"])

    def _post(self, kind: str, entity: Mapping[str, object]) -> dict[str, Any]:
        answer = self.rest.post(f"/api/config/{kind}", json=entity)
        assert answer.status_code == 201, f"{kind}: {answer.status_code} {answer.text}"
        created: dict[str, Any] = answer.json()
        return created

    # What became of it.

    def jobs(self, **where: str) -> list[dict[str, Any]]:
        """Jobs as the API lists them, restricted to those whose fields equal these."""
        answer = self.rest.get("/api/jobs", params={"limit": 500})
        answer.raise_for_status()
        return [job for job in answer.json() if all(job[key] == value for key, value in where.items())]

    def exports(self) -> list[dict[str, Any]]:
        """Export tasks as the API lists them, the newest first."""
        answer = self.rest.get("/api/exports")
        answer.raise_for_status()
        return list(answer.json())

    def wait_for(self, condition: Callable[[], Any], timeout: float, what: str) -> Any:
        """The first true value of a condition; when it stays false, the failure shows the end of the log."""
        try:
            return wait_for(condition, timeout, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n--- end of the gateway's log\n{self.tail()}") from None

    def wait_jobs(
        self, count: int, timeout: float = 60.0, *, platform_state: str = "Succeeded", **where: str
    ) -> list[dict[str, Any]]:
        """Wait until exactly so many jobs exist (whose fields equal these), and all reached a state on the platform."""

        def there() -> list[dict[str, Any]]:
            jobs = self.jobs(**where)
            assert len(jobs) <= count, f"{len(jobs)} jobs instead of {count}: {jobs}"
            done = [job for job in jobs if job["platformState"] == platform_state]
            return jobs if len(jobs) == len(done) == count else []

        found: list[dict[str, Any]] = self.wait_for(there, timeout, f"{count} jobs with state {platform_state}")
        return found

    def run_metadata(self, job_id: str) -> dict[str, str]:
        """What the embedded platform has on record of a job."""
        with contextlib.closing(sqlite3.connect(f"file:{self.ledger}?mode=ro", uri=True)) as ledger:
            (text,) = ledger.execute("SELECT metadata FROM run WHERE job_id = ?", (job_id,)).fetchone()
        metadata: dict[str, str] = json.loads(text)
        return metadata

    def log_text(self) -> str:
        """All that it has logged."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def tail(self, lines: int = 40) -> str:
        """The end of the log."""
        return "\n".join(self.log_text().splitlines()[-lines:])

    def check_log(self) -> None:
        """Fail when the log tells of an exception that nobody foresaw."""
        lines = [line for line in self.log_text().splitlines() if "UNEXPECTED" in line or "Traceback" in line]
        bad = [line for line in lines if not any(part in line for part in self._tolerated)]
        assert not bad, "the log has unexpected exceptions:\n" + "\n".join(bad[:20])


def rss_peak_bytes(pid: int) -> int:
    """The most memory that a process ever had resident."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"process {pid} has no VmHWM")
