"""The sweep: every few seconds, and at start, finds what a lost message left behind, and tidies up."""

import contextlib
import os
import time
from collections.abc import Iterator

from actors.processor.asking import Asker
from actors.processor.associations import Associations
from actors.processor.closing import Closer
from actors.processor.history import History
from actors.processor.intake import Intake
from actors.processor.jobs import Announcer
from actors.processor.registry import Registry
from actors.processor.shards import Listing, OpenShards
from protocol import killpoints
from protocol.clock import Moment
from protocol.ledger import PAGE_ROWS, Ledger, SealedShard, tuples
from protocol.messages import DescribedInstance, StoredInstance
from protocol.spool import Spool

SWEEP_SECONDS = 3.0
# What extractors put off (extractor/patience.py) is no lost message, nor what waits while they catch up.
_OLD_ENOUGH_NS = 4_000_000_000
_WANTED_AT_ONCE = 20_000


class Sweep:
    """One round after another, in small steps, so that nothing else waits for it.

    Args:
        ledger: the ledger.
        spool: the spool.
        registry: is refreshed.
        shards: is looked at, and sealed.
        associations: tell the AE titles of instances.
        intake: tells what is on its way to the ledger.
        asker: asks for the rest.
        closer: forgets what has vanished.
        announcer: announces jobs again.
        history: takes what was reclaimed.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        spool: Spool,
        registry: Registry,
        shards: OpenShards,
        associations: Associations,
        intake: Intake,
        asker: Asker,
        closer: Closer,
        announcer: Announcer,
        history: History,
    ) -> None:
        self._ledger = ledger
        self._spool = spool
        self._registry = registry
        self._shards = shards
        self._associations = associations
        self._intake = intake
        self._asker = asker
        self._closer = closer
        self._announcer = announcer
        self._history = history

    def steps(self) -> Iterator[None]:
        """One round.

        Raises:
            peewee.PeeweeException: the ledger does not answer; the next round does what this one left.
        """
        self._intake.tick()
        self._registry.refresh()
        yield
        listing = self._shards.look()
        yield
        self._closer.retain(listing)
        self._want(listing)
        self._give_up()
        self._asker.ask()
        yield
        self._announcer.sweep()
        yield
        self._seal()
        yield
        yield from self._history.steps()

    def load_sealed(self) -> None:
        """Read which shards are sealed, and forget those that are gone.

        Raises:
            peewee.PeeweeException: the ledger does not answer.
        """
        sealed = {row[0] for row in tuples(SealedShard.select(SealedShard.shard))}
        self._shards.sealed = sealed & set(os.listdir(self._spool.instances))
        self._delete(sealed - self._shards.sealed)

    def _want(self, listing: Listing) -> None:
        """Find what has been on disk long enough to have come by itself."""
        self._asker.retain(listing.missing)
        young = time.time_ns() - _OLD_ENOUGH_NS
        full = self._registry.full
        wanted: list[StoredInstance] = []
        for identifier in sorted(listing.missing):
            if self._asker.knows(identifier) or self._intake.has(identifier):
                continue
            if full and self._associations.ae_title(identifier) in full:
                continue
            with contextlib.suppress(FileNotFoundError):
                mtime_ns = os.stat(self._spool.instance_path(identifier)).st_mtime_ns
                if not young <= mtime_ns <= young + 2 * _OLD_ENOUGH_NS:
                    wanted.append(StoredInstance(identifier, Moment(mtime_ns)))
            if len(wanted) >= _WANTED_AT_ONCE:
                break
        self._asker.want(wanted)

    def _give_up(self) -> None:
        """Quarantine what no extractor could describe, while it described others."""
        for stored in self._asker.hopeless():
            with contextlib.suppress(FileNotFoundError):
                instance = DescribedInstance(
                    identifier=stored.identifier,
                    stored=stored.stored,
                    size=os.stat(self._spool.instance_path(stored.identifier)).st_size,
                    called_ae_title=self._associations.ae_title(stored.identifier) or "",
                    problem="it was asked for again and again, and never described with what is needed",
                )
                self._intake.add([instance], lenient=False)

    def _seal(self) -> None:
        names = self._shards.sealable()
        if names:
            with self._ledger.transaction():
                SealedShard.insert_many(
                    [(name, time.time_ns()) for name in names], fields=[SealedShard.shard, SealedShard.sealed_ns]
                ).on_conflict_ignore().execute()
            killpoints.reach("processor.shards-sealed")
            self._shards.seal(names)
        gone = self._shards.sealed - set(os.listdir(self._spool.instances))
        self._delete(gone)
        self._shards.sealed -= gone

    def _delete(self, shards: set[str]) -> None:
        """Forget sealed shards whose directory was deleted."""
        names = sorted(shards)
        for start in range(0, len(names), PAGE_ROWS):
            SealedShard.delete().where(SealedShard.shard.in_(names[start : start + PAGE_ROWS])).execute()
