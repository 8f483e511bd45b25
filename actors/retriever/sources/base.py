"""What retrieval needs of a source, and of the place where it puts what it finds.

All calls are made in a request's own thread, and each of their waits is bounded.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from protocol.errors import AdapterError, UnavailableError
from protocol.inference import AccessionStudies, PatientStudies, Selection

SILENCE_SECONDS = 300.0
"""How long a source may send nothing of use; an archive may fetch from tape before it says anything."""
_WINDOW_BYTES = 256 * 1024


class AwayError(UnavailableError):
    """A source cannot be reached, or broke off: this was no try.

    Args:
        reason: a sentence for people, without patient data.
        reached: whether it had begun to answer.
    """

    def __init__(self, reason: str, *, reached: bool = False) -> None:
        super().__init__(reason)
        self.reached = reached


class DeniedError(AdapterError):
    """A source answered, and does not give what it was asked for; the sentence says why, without patient data."""


class PausedError(AdapterError):
    """There is no room for more now."""


class StoppedError(AdapterError):
    """This process ends, or the request was given up."""


class Sink(Protocol):
    """Where instances go."""

    def has(self, sop_instance_uid: str) -> bool:
        """Whether an instance is there already."""
        ...

    def check(self) -> None:
        """Look whether to go on.

        Raises:
            PausedError, StoppedError: not now.
        """
        ...

    def take(self, chunks: Iterable[bytes], selection: Selection) -> None:
        """Write a DICOM file and keep it, if it is of the selection.

        Raises:
            PausedError, StoppedError, StorageError: it was not kept; nor when `chunks` raises.
        """
        ...

    def take_file(self, path: Path, selection: Selection, *, counted: bool = False) -> bool:
        """Take over a file that lies in the spool durably; False, and the file stays, when it is not wanted.

        Args:
            path: of the file.
            selection: what was asked for.
            counted: whether a receiver has counted its bytes.

        Raises:
            StorageError: it could not be taken.
        """
        ...


class DicomSource(ABC):
    """A source of DICOM instances.

    Every method raises `AwayError`, `DeniedError`, and what the sink raises.
    """

    @abstractmethod
    def studies_of(self, wanted: PatientStudies | AccessionStudies) -> list[str]:
        """The Study Instance UIDs that match; those of others are never among them."""

    @abstractmethod
    def instances_of(self, selection: Selection) -> list[tuple[str, str]] | None:
        """Series and SOP Instance UIDs of a study or series; None when the source cannot list them."""

    @abstractmethod
    def fetch(self, selection: Selection, sink: Sink) -> None:
        """Bring a study, a series, or instances of it."""

    @abstractmethod
    def close(self) -> None:
        """Let go of connections."""


def paced(chunks: Iterable[bytes], seconds: float = SILENCE_SECONDS, least: int = _WINDOW_BYTES) -> Iterator[bytes]:
    """Chunks as they come, unless they only trickle.

    Args:
        chunks: of a body.
        seconds: in each such window there must be enough bytes, or the body's end.
        least: what is enough.

    Raises:
        AwayError: it trickled.
    """
    began, count = time.monotonic(), 0
    for chunk in chunks:
        count += len(chunk)
        yield chunk
        if time.monotonic() - began >= seconds:
            if count < least:
                raise AwayError(f"it sent {count} bytes in {seconds:g} s", reached=True)
            began, count = time.monotonic(), 0
