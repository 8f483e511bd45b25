"""What an association receives: a request with its dataset, and the presentation context that it comes on."""

from dataclasses import dataclass
from typing import Protocol

from actors.receiver.command import Command
from actors.receiver.file_meta import FileMeta
from actors.receiver.first_elements import ExpectedUids
from actors.receiver.forms import StoreForm
from actors.receiver.negotiation import AcceptedContext
from actors.receiver.store import Complete, start_write_back
from protocol.dimse.elements import Encoding, encoding_of

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

    def write_back(self) -> None:
        """Let the disk begin with what has come, now and then, so that the sync at the end is short."""
        behind = self.size - self.written_back
        if behind >= _WRITE_BACK_BYTES and self.part is not None:
            start_write_back(self.part.fd, self.written_back, behind)
            self.written_back = self.size

    def answer(self) -> None:
        """Its fate is known."""
        self.service.committed(self)
