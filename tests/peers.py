"""Real peers: DCMTK's programs and Orthanc, run as processes of their own on free ports of 127.0.0.1."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_RESPONSE = re.compile(r"Received (?:Store|C-STORE|Echo|C-ECHO) Response \((?P<status>.+?)\)$", re.MULTILINE)
_WORKERS = 8
_given: deque[int] = deque(maxlen=200)  # ports
_REASON = re.compile(r"Reason: (?P<reason>.+)$", re.MULTILINE)


def wait_for(condition: Callable[[], Any], timeout: float, what: str, interval: float = 0.05) -> Any:
    """The first true value of a condition.

    Args:
        condition: looked at again and again.
        timeout: seconds until this gives up.
        what: what is waited for, for the message.
        interval: seconds between two looks.

    Raises:
        AssertionError: the condition stayed false.
    """
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(f"after {timeout:g} s still no {what} (last seen: {value!r})")
        time.sleep(interval)


def free_port() -> int:
    """A port on which nothing listens, below the range from which the kernel takes those of outgoing connections.

    Each worker of pytest-xdist has ports of its own: what one has found free, another might take before it is used.
    Nor is any of the last ones given again.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
    while True:
        port = random.randrange(20_000 + worker, 32_000, _WORKERS)
        if port in _given:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                _given.append(port)
                return port


def listens(port: int) -> bool:
    """Whether a connection to 127.0.0.1 is taken."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass(frozen=True)
class Sent:
    """How one run of a sender ended.

    Args:
        exit_code: of the process.
        output: all that it said.
        statuses: DCMTK's words for each response, in order: `Success`, `Refused: OutOfResources`, …
        seconds: how long it ran.
    """

    exit_code: int
    output: str
    statuses: tuple[str, ...]
    seconds: float

    @property
    def successes(self) -> int:
        """How many objects were answered 0x0000."""
        return self.statuses.count("Success")

    @property
    def rejection(self) -> str:
        """Why the association was rejected, in DCMTK's words; empty when it was not."""
        if "Association Rejected" not in self.output:
            return ""
        found = _REASON.search(self.output)
        return found["reason"].strip() if found else "unknown"


class Sender:
    """A sender that runs beside the test; `result` waits for its end.

    Args:
        command: program and arguments.
        environ: variables added to ours.
    """

    def __init__(self, command: Sequence[str | Path], environ: dict[str, str] | None = None) -> None:
        self._started = time.monotonic()
        self.process = subprocess.Popen(
            [str(word) for word in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, **(environ or {})},
        )

    def result(self, timeout: float = 120.0) -> Sent:
        """Wait until it ends.

        Raises:
            AssertionError: it did not end in time.
        """
        try:
            output, _ = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            output, _ = self.process.communicate()
            raise AssertionError(f"{self.process.args} did not end in {timeout:g} s:\n{output[-4000:]}") from None
        statuses = tuple(match["status"] for match in _RESPONSE.finditer(output))
        return Sent(self.process.returncode, output, statuses, time.monotonic() - self._started)


def start_storescu(
    port: int,
    *files: Path,
    called: str,
    calling: str = "STORESCU",
    options: Sequence[str] = ("-xe",),
    nodelay: bool = True,
) -> Sender:
    """Start DCMTK's storescu.

    Args:
        port: on 127.0.0.1.
        files: files, or directories that are searched.
        called: the called AE title.
        calling: the calling AE title.
        options: further options, among them the proposed transfer syntaxes.
        nodelay: without Nagle's algorithm.
    """
    command = ["storescu", "-v", "--no-halt", "+sd", "+r", "-aet", calling, "-aec", called, *options]
    environ = {"TCP_NODELAY": "1"} if nodelay else {}
    return Sender([*command, "127.0.0.1", str(port), *files], environ)


def storescu(port: int, *files: Path, called: str, timeout: float = 120.0, **more: Any) -> Sent:
    """Send with DCMTK's storescu and wait for its end; arguments as `start_storescu`."""
    return start_storescu(port, *files, called=called, **more).result(timeout)


def dcmsend(port: int, *files: Path, called: str, calling: str = "DCMSEND", options: Sequence[str] = ()) -> Sent:
    """Send with DCMTK's dcmsend, which proposes each file's own transfer syntax."""
    command = ["dcmsend", "-v", "--no-halt", "+sd", "+r", "-aet", calling, "-aec", called, *options]
    return Sender([*command, "127.0.0.1", str(port), *files], {"TCP_NODELAY": "1"}).result()


def echoscu(port: int, *, called: str, calling: str = "ECHOSCU", options: Sequence[str] = ()) -> Sent:
    """Verify with DCMTK's echoscu."""
    command = ["echoscu", "-v", "-aet", calling, "-aec", called, *options, "127.0.0.1", str(port)]
    return Sender(command).result(60.0)


class Server:
    """A peer that listens, until the block ends.

    Args:
        command: program and arguments.
        port: on which it will listen.
        log: file of its output.
        timeout: seconds until it must listen.
        user: who it runs as, when that is not us.
        nodelay: without Nagle's algorithm, if it is DCMTK's.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        port: int,
        log: Path,
        timeout: float = 30.0,
        user: str | None = None,
        *,
        nodelay: bool = True,
    ) -> None:
        self.port = port
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **({"TCP_NODELAY": "1"} if nodelay else {})},
                user=user,
                extra_groups=[] if user else None,
            )
        try:
            wait_for(self._ready, timeout, f"listener on port {port}: {command[0]}")
        except BaseException:
            self.stop()
            raise

    def _ready(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"{self.process.args} ended: {self.log.read_text(errors='replace')[-2000:]}")
        return listens(self.port)

    def stop(self, first: signal.Signals = signal.SIGTERM) -> None:
        """End it and what it started, by SIGKILL if the first signal does not."""
        for number in (first, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10.0)
                return

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def storescp(directory: Path, *, options: Sequence[str] = ("+xa", "+B", "-pm"), port: int = 0) -> Server:
    """DCMTK's storescp, which by default takes every syntax and SOP class and keeps the bytes as they come."""
    directory.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    command = ["storescp", "-v", "+uf", "-pdu", "131072", "-od", directory, *options, str(port)]
    return Server(command, port, directory.with_name(f"{directory.name}.log"))


@contextlib.contextmanager
def orthanc(
    directory: Path,
    *,
    dicomweb: bool = True,
    users: Mapping[str, str] | None = None,
    ports: Mapping[str, int] | None = None,
    **more: Any,
) -> Iterator[dict[str, int]]:
    """Orthanc, by default with its DICOMweb plug-in; yields its ports as `http` and `dicom`, and its `pid`.

    Args:
        directory: of its data, which a second Orthanc may go on with.
        dicomweb: whether it has the plug-in.
        users: names and passwords for Basic authentication; none is needed without.
        ports: those of an Orthanc before it.
        more: further settings.
    """
    program = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
    directory.mkdir(parents=True, exist_ok=True)
    ports = dict(ports) if ports else {"http": free_port(), "dicom": free_port()}
    plugins = [str(path) for path in Path("/usr/share/orthanc/plugins").glob("libOrthancDicomWeb*")]
    configuration = {
        "Name": "tests",
        "StorageDirectory": str(directory / "storage"),
        "IndexDirectory": str(directory / "index"),
        "HttpPort": ports["http"],
        "DicomPort": ports["dicom"],
        "DicomAet": "ORTHANC",
        "AuthenticationEnabled": bool(users),
        "RegisteredUsers": dict(users or {}),
        "RemoteAccessAllowed": False,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowEcho": True,
        "OverwriteInstances": True,
        "Plugins": plugins if dicomweb else [],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        **more,
    }
    file = directory / "orthanc.json"
    file.write_text(json.dumps(configuration, indent=1))
    with Server([program, file], ports["http"], directory / "orthanc.log", timeout=60.0) as server:
        yield {**ports, "pid": server.process.pid}
