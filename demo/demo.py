"""Runs the whole gateway once, from an empty directory to a pipeline's findings, and leaves nothing behind."""

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from demo import send
from demo.studies import Study, make_ct, make_mr
from protocol import control
from protocol.errors import AdapterError

AE_TITLE = "DEMO"
TIMEOUT_SECONDS = 5
_REPOSITORY = Path(__file__).resolve().parent.parent
_COMMAND = Path(sys.executable).with_name("dicom-adapter")


class DemoError(Exception):
    """A step failed; the sentence says which."""


class Demo:
    """One demonstration in a directory of its own.

    Args:
        directory: for everything that it writes.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = directory / "gateway.log"
        self.port, self.api_port = free_ports(2)
        self.environ = {
            **os.environ,
            "DICOM_ADAPTER_URL": f"http://127.0.0.1:{self.api_port}",
            "RUNTIME_DIRECTORY": str(directory / "run"),
        }
        self.gateway: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        """All steps, in order.

        Raises:
            DemoError: one failed.
        """
        studies = [make_ct(self.directory / "ct"), make_mr(self.directory / "mr")]
        total = sum(study.instances for study in studies)
        say(f"Two studies to send: {studies[0].about}; {studies[1].about}.")

        heading("1. Start the gateway")
        self.start()
        print(self.command("status"), end="")

        heading("2. Tell it what to do with what it gets")
        pipeline = [sys.executable, str(_REPOSITORY / "demo" / "pipeline.py"), "{input}", "{output}"]
        created = self.command(
            "create", "pipeline", "-n", "statistics", "--", *pipeline, str(self.directory / "findings")
        )
        print(created, end="")
        pipeline_id = created.split()[-1]
        settings = (f"timeout={TIMEOUT_SECONDS}", f"pipeline-statistics={pipeline_id}")
        print(self.command("create", "aetitle", "-a", AE_TITLE, *settings), end="")
        print(self.command("create", "src", "-a", send.AE_TITLE, "-i", "127.0.0.1"), end="")

        heading(f"3. Send {total} objects from another process")
        self.send(studies, total)

        heading("4. Each study becomes a job")
        self.follow(len(studies))

        heading("5. The journey of the CT study")
        print(self.command("trace", studies[0].uid), end="")

        heading("6. What the pipeline found")
        for file in sorted((self.directory / "findings").glob("*.txt")):
            print(file.read_text(encoding="utf-8"))

        heading("7. Stop")
        self.stop()
        say("Stopped; no process and no file is left. Next: README.md says how to run it for real.")

    def start(self) -> None:
        """Start the gateway and wait until every actor runs."""
        settings = {
            "DicomAdapter": {
                "dicom": {"scp": {"port": self.port, "bind": "127.0.0.1"}},
                "api": {"port": self.api_port},
                "storage": {"temporary": str(self.directory / "spool"), "reserveSpaceGB": 0, "watermarkPercent": 100},
            },
            "ConnectionStrings": {"DicomAdapterDatabase": f"Data Source={self.directory / 'dicomadapter.db'}"},
        }
        config = self.directory / "appsettings.json"
        config.write_text(json.dumps(settings, indent=2))
        words = ["run", "--config", str(config)]
        echo(words, "&")
        with self.log.open("wb") as log:
            self.gateway = subprocess.Popen(
                [_COMMAND, *words],
                cwd=_REPOSITORY,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.wait(self.all_running, 60.0, "every actor runs")

    def all_running(self) -> bool:
        """Whether every actor runs."""
        try:
            actors = control.status(self.environ["RUNTIME_DIRECTORY"]).actors
        except AdapterError:
            return False
        return all(actor.state == "running" for actor in actors)

    def command(self, *words: str, shown: bool = True) -> str:
        """Run a command of `dicom-adapter`, shown as one would type it; returns what it printed."""
        if shown:
            echo(words)
        ended = subprocess.run(
            [_COMMAND, *words],
            env=self.environ,
            cwd=_REPOSITORY,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if ended.returncode:
            raise DemoError(f"dicom-adapter {words[0]} ended with {ended.returncode}: {ended.stderr.strip()}")
        return ended.stdout

    def send(self, studies: list[Study], total: int) -> None:
        """Send the studies by a real SCU, and show how many objects were acknowledged."""
        words = ["-m", "demo.send", str(self.port), AE_TITLE, *(str(study.directory) for study in studies)]
        started, stored = time.monotonic(), 0
        sender = subprocess.Popen(
            [sys.executable, *words], cwd=_REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert sender.stdout is not None
        assert sender.stderr is not None
        for _ in sender.stdout:
            stored += 1
            if stored % 10 == 0 or stored == total:
                progress(f"stored and acknowledged: {stored} of {total}", last=stored == total)
        errors = sender.stderr.read()
        if sender.wait(60) or stored != total:
            raise DemoError(f"the sender stored {stored} of {total} objects: {errors.strip()}")
        say(f"Every one was on disk, synced, before it was acknowledged; it took {time.monotonic() - started:.1f} s.")

    def follow(self, count: int) -> None:
        """Show the jobs until all of them have run."""
        closes = time.monotonic() + TIMEOUT_SECONDS
        shown = ""

        def done() -> bool:
            nonlocal shown
            jobs: list[dict[str, Any]] = json.loads(self.command("jobs", "list", "--json", shown=False))
            left = closes - time.monotonic()
            if not jobs and left > 0:
                progress(f"a study is complete when it was quiet for {TIMEOUT_SECONDS} s: closes in {left:.0f} s")
            told = "\n".join(f"{job['jobName']}: {job['state']}, {job['platformState'] or 'waiting'}" for job in jobs)
            if told != shown:
                progress(told, last=True)
                shown = told
            failed = [job for job in jobs if job["platformState"] == "Failed" or job["state"] == "Faulted"]
            if failed:
                raise DemoError(f"a job failed:\n{self.command('jobs', 'show', failed[0]['jobId'])}")
            return len(jobs) == count and all(job["platformState"] == "Succeeded" for job in jobs)

        self.wait(done, 90.0, f"{count} jobs have run")

    def stop(self) -> None:
        """Stop the gateway in order."""
        assert self.gateway is not None
        self.gateway.terminate()
        try:
            code = self.gateway.wait(30)
        except subprocess.TimeoutExpired:
            raise DemoError("the gateway did not stop") from None
        if code:
            raise DemoError(f"the gateway ended with code {code}")

    def clean_up(self) -> None:
        """End the gateway whatever happened; its actors and pipelines notice and go."""
        if self.gateway is not None and self.gateway.poll() is None:
            self.gateway.terminate()
            try:
                self.gateway.wait(20)
            except subprocess.TimeoutExpired:
                self.gateway.kill()
                self.gateway.wait()

    def wait(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """Wait until a condition holds.

        Raises:
            DemoError: it did not in time, or the gateway ended.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            if self.gateway is not None and self.gateway.poll() is not None:
                raise DemoError(f"the gateway ended with code {self.gateway.returncode}")
            if time.monotonic() > deadline:
                raise DemoError(f"it did not happen within {seconds:g} s that {what}")
            time.sleep(0.2)

    def tail(self, lines: int = 30) -> str:
        """The end of the gateway's log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""


def free_ports(count: int) -> list[int]:
    """Ports on which nothing listens, all different."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def heading(text: str) -> None:
    """A step's title."""
    bold, plain = ("\x1b[1m", "\x1b[0m") if sys.stdout.isatty() else ("", "")
    print(f"\n{bold}{text}{plain}", flush=True)


def say(text: str) -> None:
    """A sentence."""
    print(text, flush=True)


def echo(words: list[str] | tuple[str, ...], after: str = "") -> None:
    """A command as one would type it."""
    print(f"$ {shlex.join(['dicom-adapter', *words])} {after}".rstrip(), flush=True)


def progress(text: str, *, last: bool = False) -> None:
    """A line that the next one overwrites on a terminal; elsewhere only what lasts is printed."""
    if sys.stdout.isatty():
        print(f"\r\x1b[K{text}", end="\n" if last else "", flush=True)
    elif last:
        print(text, flush=True)


def main() -> int:
    """Run the demo; returns 0 when every step succeeded."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    directory = Path(tempfile.mkdtemp(prefix="dicom-adapter-demo-"))
    demo = Demo(directory)
    try:
        demo.run()
    except DemoError as error:
        print(f"\ndemo: {error}\n--- end of the gateway's log\n{demo.tail()}", file=sys.stderr)
        return 1
    finally:
        demo.clean_up()
        shutil.rmtree(directory, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
