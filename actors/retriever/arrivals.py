"""What C-MOVEs of ours bring: the hosts that receivers let in meanwhile, and the files that they leave.

A receiver stores what comes for our own AE title apart from the instances (`Spool.arrivals`), durably, before it
answers. From there a file goes by its name to the request whose move asked for its study.
"""

import contextlib
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from actors.retriever.identity import NotDicomError, identify
from actors.retriever.sources.base import AwayError, Sink
from protocol.access import normalize_address
from protocol.clock import NANOSECONDS
from protocol.errors import StorageError
from protocol.inference import Selection
from protocol.moves import EXPECTED_SECONDS, ExpectedMove, MovesFile
from protocol.spool import Spool


class Arrivals:
    """Expectations and arrivals of all moves of this process; any thread may use it.

    Args:
        spool: where both are.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool.arrivals()
        self._file = MovesFile(spool.moves)
        self._lock = threading.Lock()
        self._hosts: Counter[str] = Counter()
        self._studies: Counter[str] = Counter()
        self._known: dict[str, str] = {}  # the study of each file that was looked at; "" when it has none

    @contextlib.contextmanager
    def expected(self, host: str, study_uid: str) -> Iterator[None]:
        """A move is under way: its host may send to us.

        Args:
            host: name or address of the peer that was asked to move.
            study_uid: what it was asked for.

        Raises:
            AwayError: the name has no address.
            StorageError: receivers could not be told.
        """
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except OSError as error:
            raise AwayError(f"its host name has no address ({error.strerror})") from error
        addresses = {normalize_address(str(each[4][0])) for each in found}
        with self._lock:
            self._hosts.update(addresses)
            self._studies[study_uid] += 1
            self._write()
        try:
            yield
        finally:
            with self._lock:
                self._hosts.subtract(addresses)
                self._studies[study_uid] -= 1
                self._write()

    def refresh(self) -> None:
        """Expectations end by themselves: renew those of moves that are still under way."""
        with self._lock:
            if any(count > 0 for count in self._hosts.values()):
                self._write()

    def _write(self) -> None:
        until_ns = time.time_ns() + int(EXPECTED_SECONDS * NANOSECONDS)
        hosts = sorted(host for host, count in self._hosts.items() if count > 0)
        try:
            self._file.replace(tuple(ExpectedMove(host=host, until_ns=until_ns) for host in hosts))
        except OSError as error:
            raise StorageError(f"receivers could not be told of a C-MOVE ({error.strerror}): make space") from error

    def collect(self, selection: Selection, sink: Sink) -> None:
        """Give a request what has come for it.

        Raises:
            StorageError: a file could not be taken over.
        """
        for identifier in self._of_study(selection.study_uid):
            path = Path(self._spool.instance_path(identifier))
            try:
                taken = sink.take_file(path, selection, counted=True)
            except FileNotFoundError:
                continue  # another request was quicker
            if not taken and self._studies[selection.study_uid] <= 1:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)  # it was there already

    def _of_study(self, study_uid: str) -> list[str]:
        present: list[str] = []
        for shard in self._spool.open_shards(()):
            present += self._spool.list_shard(shard)[0]
        with self._lock:
            known = self._known = {each: self._known[each] for each in present if each in self._known}
        for identifier in present:
            if identifier not in known:
                with contextlib.suppress(OSError):
                    known[identifier] = self._study(identifier)
        return [identifier for identifier in present if known.get(identifier) == study_uid]

    def _study(self, identifier: str) -> str:
        try:
            return identify(self._spool.instance_path(identifier), ()).study_uid
        except NotDicomError:
            return ""
