"""The receiving sides: our gateway, whole, and its peers, each started afresh on the same disk."""

import contextlib
import os
import shutil
import sqlite3
import sys
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import httpx

from bench.load import Load
from bench.usage import cpu_seconds, peak_bytes, tree
from tests import peers
from tests.gateway import Gateway

CALLED = "BENCH"
GROUP_SECONDS = 5  # of quiet, after which a study's jobs are made: the least that can be set
_PATIENCE_SECONDS = 90.0
_START_SECONDS = 120.0
_LOOK_SECONDS = 0.2
_KEEP_SECONDS = 86400

_PYNETDICOM = """
import sys, uuid
from pathlib import Path
from pynetdicom import AE, AllStoragePresentationContexts, evt
ae = AE(); ae.maximum_pdu_size = 131072
for context in AllStoragePresentationContexts:
    ae.add_supported_context(context.abstract_syntax)
def store(event):
    dataset = event.dataset
    dataset.file_meta = event.file_meta
    dataset.save_as(Path(sys.argv[2]) / uuid.uuid4().hex, enforce_file_format=True)
    return 0x0000
ae.start_server(("127.0.0.1", int(sys.argv[1])), evt_handlers=[(evt.EVT_C_STORE, store)])
"""


class Receiving(ABC):
    """A receiving side that runs.

    Args:
        name: in tables.
        port: where it listens.
        pid: the root of its processes.
    """

    share = 1.0
    """Of the objects that it gets; a slow peer says the same with fewer."""

    def __init__(self, name: str, port: int, pid: int) -> None:
        self.name, self.port, self._pid = name, port, pid

    def pids(self) -> list[int]:
        """All its processes."""
        return tree(self._pid)

    def cpu_seconds(self) -> float:
        """Of all its processes."""
        return cpu_seconds(self.pids())

    def receivers_cpu_seconds(self) -> float:
        """Of the processes that receive, without those that work on afterwards."""
        return self.cpu_seconds()

    def receiver_peak_bytes(self) -> int:
        """The most memory that one receiving process ever had."""
        return max(peak_bytes(pid) for pid in self.pids())

    def burst(self, load: Load, *, each: int, nodelay: bool) -> float:
        """Have all of a load sent; returns the seconds that it took.

        Args:
            load: what is sent.
            each: only so many objects of each study.
            nodelay: the senders' Nagle's algorithm off.
        """
        return load.send(self.port, CALLED, nodelay=nodelay, each=each)

    def calm(self, objects: int) -> None:  # noqa: B027 # most have nothing to do
        """Wait until nothing is left to do at once; there may be something later.

        Args:
            objects: sent since the last call of `settle`.
        """

    @abstractmethod
    def settle(self, objects: int) -> int:
        """Wait until all work is done; returns how many of the objects it has.

        Args:
            objects: sent since the last call.
        """

    @abstractmethod
    def empty(self) -> None:
        """Free the space of what was received.

        Files are emptied and not deleted: ext4 without a journal passes over inodes that were deleted in the last
        minutes, one by one, which would be a third of a receiver's CPU time in the next round.
        """


Start = Callable[[Path], AbstractContextManager[Receiving]]


class _Directory(Receiving):
    """A peer that writes files into a directory."""

    def __init__(self, name: str, server: peers.Server, directory: Path, share: float = 1.0) -> None:
        super().__init__(name, server.port, server.process.pid)
        self._directory, self._known = directory, 0
        self.share = share

    def settle(self, objects: int) -> int:  # noqa: ARG002 # it has what it has when the senders have ended
        before, self._known = self._known, sum(1 for _ in os.scandir(self._directory))
        return self._known - before

    def empty(self) -> None:
        _empty(self._directory)


class _Orthanc(Receiving):
    share = 0.25

    def __init__(self, port: int, http: int, pid: int, directory: Path) -> None:
        super().__init__("Orthanc", port, pid)
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{http}", timeout=120.0)
        self._directory, self._known = directory, 0

    def settle(self, objects: int) -> int:  # noqa: ARG002 # it has what it has when the senders have ended
        before, self._known = self._known, int(self._http.get("/statistics").json()["CountInstances"])
        return self._known - before

    def empty(self) -> None:
        _empty(self._directory / "storage")


class WholeGateway(Receiving):
    """Ours, with all its actors.

    Args:
        name: in tables.
        running: the gateway.
    """

    def __init__(self, name: str, running: Gateway) -> None:
        assert running.process is not None
        super().__init__(name, running.port, running.process.pid)
        self.running = running
        self._grouped, self._done = self._groups(), self._jobs()

    def receivers_cpu_seconds(self) -> float:
        """See there."""
        return cpu_seconds(self.running.pids("receiver"))

    def receiver_peak_bytes(self) -> int:
        """See there."""
        return max(peak_bytes(pid) for pid in self.running.pids("receiver"))

    def calm(self, objects: int) -> None:
        """All is described and on record."""
        _wait(lambda: self._groups() >= self._grouped + objects)

    def settle(self, objects: int) -> int:
        """All is in jobs, and their pipelines have run."""
        _wait(lambda: self._jobs() >= self._done + objects)
        before, self._done = self._done, self._jobs()
        self._grouped = self._groups()
        return self._done - before

    def empty(self) -> None:
        """The files stay, since repeats are looked for so long; their space does not."""
        _empty(self.running.spool / "instances")

    def query(self, sql: str) -> list[tuple[int, ...]]:
        """Ask the ledger, which is SQLite."""
        with contextlib.closing(sqlite3.connect(f"file:{self.running.ledger}?mode=ro", uri=True, timeout=30)) as ledger:
            return ledger.execute(sql).fetchall()

    def _groups(self) -> int:
        return self.query("SELECT COALESCE(SUM(instances), 0) FROM instance_group")[0][0]

    def _jobs(self) -> int:
        return self.query(
            "SELECT COALESCE(SUM(instances), 0) FROM job JOIN run USING (job_id) WHERE run.state = 'Succeeded'"
        )[0][0]


def _wait(condition: Callable[[], bool]) -> None:
    """Until it is true or patience ends: what is missing then is counted as lost."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not condition() and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)


def _empty(directory: Path) -> None:
    for above, _, names in os.walk(directory):
        for name in names:
            path = f"{above}/{name}"
            if os.stat(path).st_blocks:
                os.chmod(path, 0o640)
                os.truncate(path, 0)


class _Disk(Receiving):
    """What the disk alone does: as many threads as there are associations make the objects durable, without a network.

    A gateway that syncs cannot be faster than that.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__("the disk alone: durable writes", 0, os.getpid())
        self._directory, self._known = directory, 0

    def pids(self) -> list[int]:
        """None that would be compared."""
        return []

    def receiver_peak_bytes(self) -> int:
        """Nothing that would be compared."""
        return 0

    def burst(self, load: Load, *, each: int, nodelay: bool) -> float:  # noqa: ARG002 # there is no network
        """Write, sync, rename, sync the directory."""
        data = next(iter(load.studies[0].files.values())).read_bytes()
        start = time.monotonic()
        with ThreadPoolExecutor(len(load.studies)) as pool:
            list(pool.map(lambda _: self._write(data, each), load.studies))
        return time.monotonic() - start

    def settle(self, objects: int) -> int:  # noqa: ARG002 # nothing is left to do
        before, self._known = self._known, sum(1 for _ in os.scandir(self._directory))
        return self._known - before

    def empty(self) -> None:
        _empty(self._directory)

    def _write(self, data: bytes, count: int) -> None:
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        for _ in range(count):
            path = f"{self._directory}/{uuid.uuid4().hex}"
            fd = os.open(f"{path}.part", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
            os.write(fd, data)
            os.fdatasync(fd)
            os.close(fd)
            os.rename(f"{path}.part", path)
            os.fsync(directory)
        os.close(directory)


@contextlib.contextmanager
def disk(directory: Path) -> Iterator[Receiving]:
    """The bound of all that sync."""
    directory.mkdir(parents=True)
    yield _Disk(directory)


@contextlib.contextmanager
def gateway(
    directory: Path,
    *,
    sync: bool,
    name: str = "",
    settings: Mapping[str, object] | None = None,
    before: Callable[[Gateway], None] | None = None,
) -> Iterator[WholeGateway]:
    """The whole gateway, with an AE title whose pipeline returns at once.

    As root, that pipeline runs as `nobody`, whose input are links; a pipeline of the service's own user gets copies.

    Args:
        directory: for everything of it.
        sync: `storage.syncOnStore`.
        name: in tables.
        settings: further ones.
        before: called before it starts, to fill its ledger.
    """
    chosen = {
        "storage.syncOnStore": sync,
        "dicom.scp.receivers": 2,
        "dicom.scp.maximumNumberOfAssociations": 1000,
        "dicom.scp.repeatSeconds": _KEEP_SECONDS,
        **(settings or {}),
    }
    directory.mkdir(parents=True)
    running = Gateway(directory, chosen)
    if before is not None:
        before(running)
    with contextlib.ExitStack() as stack:
        stack.callback(running.clean_up)
        running.start(_START_SECONDS)
        stack.push(running.__exit__)
        user = "nobody" if os.geteuid() == 0 else ""
        pipeline = running.add_pipeline("nothing", ["true"], user=user)
        running.add_aetitle(CALLED, timeout=GROUP_SECONDS, pipeline_nothing=pipeline)
        running.add_source(CALLED)
        yield WholeGateway(name or f"gateway, sync {'on' if sync else 'off'}", running)


@contextlib.contextmanager
def storescp(directory: Path, *, nodelay: bool = True) -> Iterator[Receiving]:
    """DCMTK's storescp, a process an association; it never syncs."""
    directory.mkdir(parents=True)
    port = peers.free_port()
    command = ["storescp", "--fork", "+uf", "--max-pdu", "131072", "-od", str(directory), "+xa", "+B", str(port)]
    with peers.Server(command, port, directory.with_name(f"{directory.name}.log"), nodelay=nodelay) as server:
        yield _Directory("storescp --fork", server, directory)


@contextlib.contextmanager
def pynetdicom(directory: Path) -> Iterator[Receiving]:
    """Pynetdicom's plain server, whose handler writes the dataset."""
    directory.mkdir(parents=True)
    port = peers.free_port()
    command = [sys.executable, "-c", _PYNETDICOM, str(port), str(directory)]
    with peers.Server(command, port, directory.with_name(f"{directory.name}.log")) as server:
        yield _Directory("pynetdicom", server, directory, share=0.1)


@contextlib.contextmanager
def orthanc(directory: Path) -> Iterator[Receiving]:
    """Orthanc with SyncStorageArea on, its default."""
    with peers.orthanc(directory, dicomweb=False) as ports:
        yield _Orthanc(ports["dicom"], ports["http"], int(ports["pid"]), directory)
    shutil.rmtree(directory / "index", ignore_errors=True)
