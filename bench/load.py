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
        objects: how many one association sends.
    """

    name: str
    rows: int
    objects: int


SMALL = Kind("small (9 kB)", 64, 1000)
CT = Kind("CT (526 kB)", 512, 400)
MULTI_FRAME = Kind("multi-frame (32 MB)", 4000, 12)


class Load:
    """Studies in memory (a tmpfs), one an association.

    Args:
        directory: on a tmpfs, so that senders do not wait for a disk.
        kind: size of the objects.
        associations: how many senders.
        objects: how many objects each sends; the kind's own number by default.
    """

    def __init__(self, directory: Path, kind: Kind, associations: int, objects: int = 0) -> None:
        self.kind = kind
        each = objects or kind.objects
        self.studies = [make_study(directory / f"{n}", f"PAT-{n}", each, rows=kind.rows) for n in range(associations)]
        self.objects = each * associations
        self.bytes = sum(path.stat().st_size for study in self.studies for path in study.files.values())
        self._places: dict[Path, list[tuple[int, str]]] = {}
        self._uids: dict[str, str] = {}
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

    def send(self, port: int, called: str, *, nodelay: bool) -> float:
        """Send everything once; returns the seconds from the first sender's start to the last one's end.

        Raises:
            RuntimeError: a sender failed.
        """
        environ = dict(os.environ)
        environ.pop("TCP_NODELAY", None)
        if nodelay:
            environ["TCP_NODELAY"] = "1"
        command = [
            "storescu",
            "--max-pdu",
            "131072",
            "+sd",
            "+r",
            "-aet",
            "BENCH",
            "-aec",
            called,
            "127.0.0.1",
            str(port),
        ]
        start = time.monotonic()
        senders = [
            subprocess.Popen([*command, str(study.directory)], env=environ, stdout=subprocess.DEVNULL)
            for study in self.studies
        ]
        codes = [sender.wait() for sender in senders]
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
