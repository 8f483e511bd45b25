"""The senders: DCMTK's storescu, several at once, with objects whose UIDs are fresh every round."""

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from tests.samples import Study, make_study, new_uid


@dataclass(frozen=True)
class Kind:
    """A size of object.

    Args:
        name: in tables.
        rows: rows and columns of two bytes.
        objects: how many one of four associations sends.
        with_nagle: the same to a peer that needs 90 ms an object, since Nagle's algorithm is on.
    """

    name: str
    rows: int
    objects: int
    with_nagle: int


SMALL = Kind("small (9 kB)", 64, 1000, 12)
CT = Kind("CT (526 kB)", 512, 200, 12)
MULTI_FRAME = Kind("multi-frame (32 MB)", 4000, 5, 3)
KINDS = {"small": SMALL, "ct": CT, "multiframe": MULTI_FRAME}


class Load:
    """Studies in memory (a tmpfs), so that senders do not wait for a disk.

    Args:
        directory: on a tmpfs.
        kind: size of the objects.
        studies: how many.
        objects: how many objects each has.
    """

    def __init__(self, directory: Path, kind: Kind, studies: int, objects: int) -> None:
        self.kind = kind
        self.studies = [make_study(directory / f"{n}", f"PAT-{n}", objects, rows=kind.rows) for n in range(studies)]
        self.each = objects
        self.object_bytes = next(iter(self.studies[0].files.values())).stat().st_size
        self._places: dict[Path, list[tuple[int, str]]] = {}
        for study in self.studies:
            for uid, path in study.files.items():
                self._places[path] = _places(path, study, uid)

    def renew(self) -> None:
        """Give every study and every object a UID that no receiver has seen."""
        fresh = {study.uid: new_uid() for study in self.studies}
        for path, places in self._places.items():
            own = new_uid()
            fd = os.open(path, os.O_WRONLY)
            for offset, role in places:
                os.pwrite(fd, fresh.get(role, own).encode(), offset)
            os.close(fd)

    def send(self, port: int, called: str, *, nodelay: bool, each: int = 0, senders: int = 0) -> float:
        """Send everything once; returns the seconds from the first sender's start to the last one's end.

        Args:
            port: on 127.0.0.1.
            called: AE title.
            nodelay: the senders' Nagle's algorithm off.
            each: only so many objects of each study; all by default.
            senders: how many associations share the studies; one a study by default.

        Raises:
            RuntimeError: a sender failed.
        """
        environ = {name: value for name, value in os.environ.items() if name != "TCP_NODELAY"}
        if nodelay:
            environ["TCP_NODELAY"] = "1"
        command = ["storescu", "--max-pdu", "131072", "+sd", "-aet", "BENCH", "-aec", called, "127.0.0.1", str(port)]
        senders = senders or len(self.studies)
        lists = [
            [str(path) for study in self.studies[number::senders] for path in study.part(0, each or self.each)]
            for number in range(senders)
        ]
        start = time.monotonic()
        running = [
            subprocess.Popen([*command, *files], env=environ, stdout=subprocess.DEVNULL) for files in lists if files
        ]
        codes = [sender.wait() for sender in running]
        seconds = time.monotonic() - start
        if any(codes):
            raise RuntimeError(f"storescu ended with {codes}")
        return seconds


def _places(path: Path, study: Study, uid: str) -> list[tuple[int, str]]:
    """Where the object's own UID and its study's stand: offset, and which one."""
    with path.open("rb") as file:
        head = file.read(8192)
    found = []
    for role in (uid, study.uid):
        offset = head.find(role.encode())
        while offset >= 0:
            found.append((offset, role))
            offset = head.find(role.encode(), offset + 1)
    return found
