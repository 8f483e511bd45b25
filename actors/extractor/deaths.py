"""What extractors died of: an instance that ends whoever reads it is read a few times, and then given up.

It is between the extractor and its runtime directory. While an extractor reads an instance, its note names it; the note
is a page of memory in a file, so that it costs nothing and outlives a kill. Whoever takes the name of a dead extractor
finds the note and adds a line to the list of deaths, which all extractors share. A hung one is killed by the
supervisor, and counts as well.
"""

import mmap
import os
from collections import Counter
from pathlib import Path

MOST_DEATHS = 3
"""So many extractors may an instance end before it is given up."""
_NOTE_BYTES = 256
_GIVEN_UP = "-"


class Deaths:
    """The note of one extractor, and the list of all.

    Args:
        runtime: the runtime directory.
        name: the extractor's; its predecessor of that name is dead.

    Raises:
        OSError: the runtime directory cannot be written.
    """

    def __init__(self, runtime: str, name: str) -> None:
        self._list = Path(runtime) / "extractor.deaths"
        self._counts: Counter[str] = Counter()
        self._read_bytes = 0
        fd = os.open(Path(runtime) / f"{name}.reading", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(fd, _NOTE_BYTES)
            self._note = mmap.mmap(fd, _NOTE_BYTES)
        finally:
            os.close(fd)
        predecessor_read = self._note[1 : 1 + self._note[0]].decode("ascii", "replace")
        if predecessor_read:
            self._add(predecessor_read)
        self.end()

    def begin(self, identifier: str) -> None:
        """An instance is about to be read."""
        name = identifier.encode()[: _NOTE_BYTES - 1]
        self._note[1 : 1 + len(name)] = name
        self._note[0] = len(name)  # last, since a kill may come between the two

    def end(self) -> None:
        """Nothing is read any more."""
        self._note[0] = 0

    def refresh(self) -> None:
        """Learn of the deaths of others."""
        try:
            if os.stat(self._list).st_size == self._read_bytes:
                return
            data = self._list.read_bytes()
        except FileNotFoundError:
            return
        self._read_bytes = len(data)
        self._counts.clear()
        for line in data.decode("ascii", "replace").splitlines():
            if line.startswith(_GIVEN_UP):
                del self._counts[line[1:]]
            else:
                self._counts[line] += 1

    def of(self, identifier: str) -> int:
        """How many extractors died while they read an instance."""
        return self._counts[identifier]

    def forget(self, identifier: str) -> None:
        """An instance was given up, and the processor told: should a person release it, it is read again."""
        self._add(_GIVEN_UP + identifier)

    def _add(self, line: str) -> None:
        fd = os.open(self._list, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, f"{line}\n".encode())
        finally:
            os.close(fd)
