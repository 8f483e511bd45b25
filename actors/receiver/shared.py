"""What all associations of one receiver process share."""

from collections.abc import Callable
from dataclasses import dataclass

from actors.actor import Actor
from actors.receiver.admission import Admission
from actors.receiver.names import HostNames
from actors.receiver.pace import Pace
from actors.receiver.pipe import Pipe
from actors.receiver.store import Store
from protocol.board import Board, ReceiverRow
from protocol.config.settings import Settings
from protocol.logs import EventLogger, Repeats
from protocol.messages import StoredInstance
from protocol.spool import ShardWriter

RECEIVE_BYTES = 1024 * 1024


@dataclass
class Shared:
    """The surroundings of an association.

    Args:
        loop: watches descriptors and keeps timers.
        settings: in force for new associations.
        board: tells whether intake is open.
        row: holds the association slots.
        admission: who may open an association.
        names: host names of sources.
        writer: opens files in the spool.
        store: makes complete objects instances.
        announce: tells the extractors of an instance, some time this turn.
        log: of this process.
        repeats: sums up what one peer does again and again.
        buffer: receives go there; what is not consumed before the next one is lost.
        pipe: the fragments of large objects go through it instead.
        pace: how lanes bring what is synced to the disk.
        cutting: whether associations are aborted between objects, since this process ends soon.
        moved: the same for what C-MOVEs of ours bring, which is stored apart and announced to nobody.
    """

    loop: Actor
    settings: Settings
    board: Board
    row: ReceiverRow
    admission: Admission
    names: HostNames
    writer: ShardWriter
    store: Store
    announce: Callable[[StoredInstance], None]
    log: EventLogger
    repeats: Repeats
    buffer: memoryview
    pipe: Pipe
    pace: Pace
    cutting: bool = False
    moved: "Shared | None" = None
