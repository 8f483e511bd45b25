"""The receiving sides: our gateway, whole, and its peers, each started afresh on the same disk."""

import contextlib
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import httpx

from bench.usage import Usage, usage_of
from tests import peers
from tests.gateway import Gateway

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
    """A receiving side that runs."""

    name: str
    port: int
    called = "BENCH"

    @abstractmethod
    def usage(self) -> Usage:
        """Of all its processes."""

    @abstractmethod
    def settle(self, objects: int) -> int:
        """Wait until it has caught up with what was sent; returns how many of the objects it has.

        Args:
            objects: sent since the last call of `clear`.
        """

    @abstractmethod
    def clear(self) -> None:
        """Forget what was received, so that a round does not fill the disk."""

    def receiver_usage(self) -> Usage:
        """Of the processes that receive, without those that work on afterwards."""
        return self.usage()


class _Directory(Receiving):
    """A peer that writes files into a directory."""

    def __init__(self, name: str, server: peers.Server, directory: Path) -> None:
        self.name, self.port = name, server.port
        self._pid, self._directory = server.process.pid, directory

    def usage(self) -> Usage:
        return usage_of(self._pid)

    def settle(self, objects: int) -> int:  # noqa: ARG002 # it has what it has when the senders have ended
        return sum(1 for _ in self._directory.iterdir())

    def clear(self) -> None:
        for path in self._directory.iterdir():
            path.unlink()


class _Orthanc(Receiving):
    def __init__(self, port: int, http: int, pid: int) -> None:
        self.name, self.port, self._pid = "Orthanc", port, pid
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{http}", timeout=120.0)

    def usage(self) -> Usage:
        return usage_of(self._pid)

    def settle(self, objects: int) -> int:  # noqa: ARG002 # it has what it has when the senders have ended
        return int(self._http.get("/statistics").json()["CountInstances"])

    def clear(self) -> None:
        for study in self._http.get("/studies").json():
            self._http.delete(f"/studies/{study}")


class _Gateway(Receiving):
    def __init__(self, name: str, gateway: Gateway) -> None:
        self.name, self.port, self._gateway = name, gateway.port, gateway
        self._seen = 0

    def usage(self) -> Usage:
        assert self._gateway.process is not None
        return usage_of(self._gateway.process.pid)

    def receiver_usage(self) -> Usage:
        return usage_of(0, self._gateway.pids("receiver"))

    def settle(self, objects: int) -> int:
        def finished() -> list[dict[str, object]]:
            jobs = self._gateway.jobs()
            known = sum(job["instances"] for job in jobs)
            done = all(job["platformState"] == "Succeeded" for job in jobs)
            return jobs if known >= self._seen + objects and done else []

        jobs = self._gateway.wait_for(finished, 120.0, f"jobs with {objects} more instances")
        before, self._seen = self._seen, sum(job["instances"] for job in jobs)
        return self._seen - before

    def clear(self) -> None:
        """The guardian reclaims by itself."""


@contextlib.contextmanager
def gateway(directory: Path, *, sync: bool, receivers: int = 2) -> Iterator[Receiving]:
    """The whole gateway, with an AE title whose pipeline returns at once."""
    settings = {"storage.syncOnStore": sync, "dicom.scp.receivers": receivers, "dicom.scp.repeatSeconds": 0}
    directory.mkdir(parents=True)
    with Gateway(directory, settings) as running:
        pipeline = running.add_pipeline("nothing", ["true"])
        running.add_aetitle("BENCH", pipeline_nothing=pipeline)
        running.add_source("BENCH")
        yield _Gateway(f"gateway, sync {'on' if sync else 'off'}", running)


@contextlib.contextmanager
def storescp(directory: Path) -> Iterator[Receiving]:
    """DCMTK's storescp, a process an association; it never syncs."""
    directory.mkdir(parents=True)
    port = peers.free_port()
    command = ["storescp", "--fork", "+uf", "--max-pdu", "131072", "-od", str(directory), "+xa", "+B", str(port)]
    with peers.Server(command, port, directory.with_name("storescp.log")) as server:
        yield _Directory("storescp --fork", server, directory)


@contextlib.contextmanager
def pynetdicom(directory: Path) -> Iterator[Receiving]:
    """Pynetdicom's plain server, whose handler writes the dataset."""
    directory.mkdir(parents=True)
    port = peers.free_port()
    command = [sys.executable, "-c", _PYNETDICOM, str(port), str(directory)]
    with peers.Server(command, port, directory.with_name("pynetdicom.log")) as server:
        yield _Directory("pynetdicom", server, directory)


@contextlib.contextmanager
def orthanc(directory: Path) -> Iterator[Receiving]:
    """Orthanc with SyncStorageArea on, its default."""
    with peers.orthanc(directory, dicomweb=False) as ports:
        pid = int(ports["pid"])
        yield _Orthanc(ports["dicom"], ports["http"], pid)
    shutil.rmtree(directory, ignore_errors=True)
