"""What the routes work with, put together once: the ledger, its owners, the registries, what is made of a change."""

import functools
import threading
import typing
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from actors.api.access import AccessWriter
from actors.api.ae_titles import AeTitles
from actors.api.book import Book
from actors.api.exports import Exports
from actors.api.inference import Inference
from actors.api.jobs import Jobs
from actors.api.journey import Trace
from actors.api.owners import Owners
from actors.api.pipelines import Pipelines
from actors.api.processors import Processors
from actors.api.quarantine import Quarantine
from actors.api.remotes import Destinations, Sources
from actors.api.storage import Storage
from actors.api.tasks import Tasks
from protocol import channels, messages
from protocol.board import Board
from protocol.bus import Bus
from protocol.config import Settings
from protocol.spool import Spool
from protocol.vault import Vault

if typing.TYPE_CHECKING:
    from actors.api.metrics import Metrics


class Gateway:
    """The gateway as the API knows it.

    Args:
        runtime: the runtime directory, where the supervisor is asked.
        settings: the settings in force.
        book: the ledger.
        bus: of this process.
        board: what must hold over all receivers.
        spool: where receivers look who may send.
    """

    def __init__(
        self, *, runtime: str, settings: Callable[[], Settings], book: Book, bus: Bus, board: Board, spool: Spool
    ) -> None:
        self.runtime = runtime
        self.settings = settings
        self.board = board
        self.book = book
        owners = Owners(bus)
        processors = Processors()
        self.access = AccessWriter(spool, book, processors)
        lock = threading.Lock()

        def tell_processor() -> None:
            owners.tell(channels.PROCESSOR_COMMANDS, messages.AeTitlesChanged())

        def tell_platform() -> None:
            owners.tell(channels.PLATFORM_COMMANDS, messages.PipelinesChanged())

        self.ae_titles = AeTitles(book, lock, self.access.write, tell_processor, processors=processors)
        self.sources = Sources(book, lock, self.access.write)
        self.destinations = Destinations(book, lock)
        self.inference = Inference(book, owners)
        self.pipelines = Pipelines(book, lock, tell=tell_platform, vault=functools.cache(lambda: Vault(spool.root)))
        self.jobs = Jobs(book, owners)
        self.exports = Exports(book, owners)
        self.tasks = Tasks(book, owners)
        self.quarantine = Quarantine(book, owners)
        self.storage = Storage(book, board)
        self.trace = Trace(book)
        self.watchers = ThreadPoolExecutor(2, thread_name_prefix="health")

    @functools.cached_property
    def metrics(self) -> "Metrics":
        """The metrics; their library is loaded when somebody asks for them first."""
        from actors.api.metrics import Metrics  # noqa: PLC0415 - the start of this process is waited for

        return Metrics(self.board, self.book)
