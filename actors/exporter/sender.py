"""What the exporter needs of a destination: the interface of everything that can deliver files.

A sender is made for one destination and one batch, used in one worker thread, and thrown away. It never decides what
is sent again: it reports what the destination said about each file.
"""

import enum
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import msgspec

from protocol.errors import AdapterError


class Outcome(enum.Enum):
    """What a destination said about one file."""

    DELIVERED = "delivered"  # it has it
    REFUSED = "refused"  # it will never take it, or the file can never be sent
    FAILED = "failed"  # it did not take it now


class OutgoingFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file to be delivered.

    Args:
        uri: its name in reports; may hold patient data, so it is written at Debug only.
        path: on this machine.
    """

    uri: str
    path: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a file.

    Args:
        uri: as in `OutgoingFile`.
        outcome: see there.
        sop_instance_uid: of the file; "" when it could not be read.
        reason: a sentence without patient data; "" when it was delivered.
    """

    uri: str
    outcome: Outcome
    sop_instance_uid: str = ""
    reason: str = ""


class DestinationDownError(AdapterError):
    """Nothing, or nothing more, could be delivered now: refused, timed out, a transient rejection, 503 and the like."""

    exit_code = 69


class Sender(ABC):
    """The way to one destination. Both methods block, and end within a bounded time whatever the destination does."""

    @abstractmethod
    def deliver(
        self, files: Sequence[OutgoingFile], report: Callable[[Report], None], stopping: threading.Event
    ) -> None:
        """Send files, and report each as soon as the destination has answered for it.

        Args:
            files: any number of them.
            report: called once for each file at most; what it was not called for is still to be sent.
            stopping: when set, no further file is begun, and this returns.

        Raises:
            DestinationDownError: it stopped in the middle; the sentence says why, without patient data.
        """

    @abstractmethod
    def probe(self) -> str:
        """Ask the destination whether it is there (C-ECHO, a QIDO-RS query); returns a sentence for people.

        Raises:
            AdapterError: it is not, or not as it should be; the sentence says what was wrong.
        """
