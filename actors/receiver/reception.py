"""What an association receives: a request with its dataset, and the presentation context that it comes on."""

import errno
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from actors.receiver.command import Command, Status
from actors.receiver.file_meta import FileMeta
from actors.receiver.first_elements import ENOUGH_BYTES, ExpectedUids, Verdict, compare, first_bytes
from actors.receiver.forms import StoreForm
from actors.receiver.negotiation import AcceptedContext
from actors.receiver.store import Complete, start_write_back
from protocol.dimse import VERIFICATION
from protocol.dimse.elements import Encoding, encoding_of
from protocol.dimse.uids import is_uid_value

VERIFICATION_SOP_CLASS = VERIFICATION.encode("ascii")
_FIRST_LOOK_BYTES = 1024
_NO_SPACE = frozenset((errno.ENOSPC, errno.EDQUOT))
_WRITE_BACK_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Ends:
    """Both ends of an association.

    Args:
        calling, called: AE titles.
        peer, local: presentation addresses.
    """

    calling: str
    called: str
    peer: str
    local: str


class StorageContext:
    """A presentation context with what storing through it needs."""

    __slots__ = ("context_id", "encoding", "expected_uids", "file_meta", "sop_class")

    def __init__(self, context: AcceptedContext, ends: Ends) -> None:
        self.context_id = context.context_id
        self.sop_class = context.abstract_syntax.encode("ascii")
        self.encoding: Encoding | None = encoding_of(context.transfer_syntax)
        self.expected_uids = ExpectedUids(self.encoding, self.sop_class) if self.encoding else None
        self.file_meta = FileMeta(
            sop_class=context.abstract_syntax,
            transfer_syntax=context.transfer_syntax,
            calling=ends.calling,
            called=ends.called,
            peer=ends.peer,
            local=ends.local,
        )

    def patterns(self, form: StoreForm) -> Callable[[int], tuple[bytes, bytes, bytes, bytes, bytes]] | None:
        """What stands around the SOP Instance UID in the response, the dataset and the file of a form's objects.

        Args:
            form: of their requests.

        Returns:
            A function of the length of the UID's value; None when datasets of this context cannot be looked into.
        """
        expected, meta = self.expected_uids, self.file_meta
        if expected is None:
            return None
        return lambda length: (*form.frame(length), expected.before(length), meta.start(length), meta.after)


class Receiving(Protocol):
    """The service of an association."""

    def committed(self, reception: "Reception") -> None:
        """The store has made a complete object an instance, or could not."""


class Reception(Complete):
    """A request with a dataset: on its way in, or to be read past.

    Args:
        service: of its association.
        command: the request.
        context: its presentation context.
        form: of the request, when it is of the association's usual one.
    """

    __slots__ = ("command", "comment", "context", "form", "head", "service", "status", "written_back")

    def __init__(
        self, service: Receiving, command: Command, context: StorageContext, form: StoreForm | None = None
    ) -> None:
        super().__init__()
        self.service = service
        self.command = command
        self.context = context
        self.form = form
        self.status: int | None = None  # decided before the end: what follows is read past
        self.comment = ""
        self.head = b""  # the first bytes, while they are too few to be looked at
        self.written_back = 0

    def refuse(self, status: int, comment: str) -> None:
        """Read past the rest and answer with this status."""
        self.status = status
        self.comment = comment
        self.head = b""

    def fail(self, error: Exception) -> None:
        """It cannot be stored: what was written of it is deleted, and the rest is read past."""
        full = isinstance(error, OSError) and error.errno in _NO_SPACE
        self.refuse(Status.OUT_OF_RESOURCES, "no space, send it again later" if full else "storage error")
        if self.part is not None:
            self.part.discard()
            self.part = None

    def judge(self, ignored: frozenset[bytes]) -> None:
        """Find what speaks against all objects of such a request.

        Args:
            ignored: SOP classes that are answered Success and not stored.
        """
        command, context = self.command, self.context
        if context.sop_class == VERIFICATION_SOP_CLASS:
            self.refuse(Status.SOP_CLASS_NOT_SUPPORTED, "the context is for Verification")
        elif not command.has_dataset:
            self.refuse(Status.CANNOT_UNDERSTAND, "there is no dataset")
        elif not command.sop_class:
            self.refuse(Status.CANNOT_UNDERSTAND, "Affected SOP Class UID is missing")
        elif command.sop_class != context.sop_class:
            self.refuse(Status.DATASET_DOES_NOT_MATCH_SOP_CLASS, "Affected SOP Class is not its context's")
        elif command.sop_class in ignored and is_uid_value(command.sop_instance):  # else it is told so below
            self.refuse(Status.SUCCESS, "")

    def is_as_expected(self, pieces: list[memoryview | bytes]) -> bool:
        """Whether the dataset begins as nearly all do on its context, with the UIDs of its command.

        Args:
            pieces: the first of it.
        """
        expected = self.context.expected_uids
        if expected is None or self.head or not pieces:
            return False
        return expected.stand_in(bytes(pieces[0][:_FIRST_LOOK_BYTES]), self.command.sop_instance)

    def look_closely(self, pieces: list[memoryview | bytes], *, final: bool) -> bool:
        """Look at the dataset's first elements.

        Args:
            pieces: the first of it, behind `head`.
            final: whether nothing follows.

        Returns:
            Whether it may be stored; False when it is refused, or more must come.
        """
        head = self.head + first_bytes(pieces)
        if not head:
            if final:
                self.refuse(Status.CANNOT_UNDERSTAND, "the dataset is empty")
            return False
        command, encoding = self.command, self.context.encoding
        if encoding is None:
            return True
        verdict = compare(head, encoding, command.sop_class, command.sop_instance)
        if verdict is Verdict.MISMATCH:
            self.refuse(Status.DATASET_DOES_NOT_MATCH_SOP_CLASS, "SOP Class or Instance UID in the dataset is another")
        elif verdict is Verdict.TOO_SHORT and not final and len(head) < ENOUGH_BYTES:
            self.head = head
        else:
            return True
        return False

    def write_back(self) -> None:
        """Let the disk begin with what has come, now and then, so that the sync at the end is short."""
        behind = self.size - self.written_back
        if behind >= _WRITE_BACK_BYTES and self.part is not None:
            start_write_back(self.part.fd, self.written_back, behind)
            self.written_back = self.size

    def answer(self) -> None:
        """Its fate is known."""
        self.service.committed(self)
