"""The shards that are not sealed: which instances lie there, which are on record, and what is in transit."""

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Collection, Iterable

from protocol.clock import NANOSECONDS
from protocol.spool import Spool, writer_of

# A directory's time stamp tells of a change only when the change is older than the kernel's clock tick.
_SETTLED_SECONDS = 1.0


@dataclasses.dataclass(slots=True)
class _Shard:
    on_record: set[str] = dataclasses.field(default_factory=set)
    missing: set[str] = dataclasses.field(default_factory=set)
    transit: set[str] = dataclasses.field(default_factory=set)
    settled_mtime_ns: int = -1


@dataclasses.dataclass(frozen=True, slots=True)
class Listing:
    """One look at all open shards.

    Args:
        missing: identifiers of instances on disk that are not on record.
        transit: identifiers of what is being received by a living process.
    """

    missing: frozenset[str]
    transit: frozenset[str]


class OpenShards:
    """The open shards of a spool.

    Args:
        spool: the spool.
        find_on_record: of some identifiers, those that have a row; for shards that were not open here before.
    """

    def __init__(self, spool: Spool, find_on_record: Callable[[Collection[str]], Collection[str]]) -> None:
        self._spool = spool
        self._find_on_record = find_on_record
        self._shards: dict[str, _Shard] = {}
        self.sealed: set[str] = set()

    def forget(self) -> None:
        """Start anew from the ledger: what was written last is not known."""
        self._shards.clear()

    def is_on_record(self, identifier: str) -> bool:
        """Whether an instance has its row; in a sealed shard all have."""
        name = identifier.partition("/")[0]
        shard = self._shards.get(name)
        return identifier in shard.on_record if shard else name in self.sealed

    def put_on_record(self, identifiers: Iterable[str]) -> None:
        """Instances have their rows."""
        for identifier in identifiers:
            name = identifier.partition("/")[0]
            shard = self._shards.get(name)
            if shard is None:
                if name in self.sealed:
                    continue
                shard = self._shards[name] = _Shard()
            shard.on_record.add(identifier)
            shard.missing.discard(identifier)

    def look(self) -> Listing:
        """List what is there now; a shard in which nothing has changed is not read again.

        Raises:
            peewee.PeeweeException: a shard is new here, and the ledger does not answer.
        """
        names = [name for name in self._spool.open_shards(self.sealed) if writer_of(name)]
        for gone in self._shards.keys() - set(names):
            del self._shards[gone]
        for name in names:
            self._look_into(name)
        transit = {identifier for shard in self._shards.values() for identifier in shard.transit}
        if transit:
            alive = self._spool.living_writers()
            transit = {part for part in transit if writer_of(part.partition("/")[0]) in alive}
        missing = {identifier for shard in self._shards.values() for identifier in shard.missing}
        return Listing(frozenset(missing), frozenset(transit))

    def sealable(self) -> list[str]:
        """Shards whose writer has moved on and that are all on record, as of the latest look."""
        newest: dict[str, str] = {}
        for name in self._shards:
            writer = writer_of(name)
            newest[writer] = max(name, newest.get(writer, name), key=_serial)
        finished = [
            name
            for name, shard in self._shards.items()
            if not shard.missing and not shard.transit and shard.settled_mtime_ns >= 0
        ]
        if not finished:
            return []
        alive = self._spool.living_writers()
        return [name for name in finished if newest[writer_of(name)] != name or writer_of(name) not in alive]

    def seal(self, names: Iterable[str]) -> None:
        """Shards are sealed in the ledger."""
        for name in names:
            self.sealed.add(name)
            self._shards.pop(name, None)

    def _look_into(self, name: str) -> None:
        path = self._spool.instances / name
        shard = self._shards.get(name)
        try:
            mtime_ns = os.stat(path).st_mtime_ns
        except FileNotFoundError:
            return
        if shard is not None and mtime_ns == shard.settled_mtime_ns:
            return
        instances, parts = self._spool.list_shard(name)
        settled = _is_settled(mtime_ns) and _mtime_ns(path) == mtime_ns
        if not settled:
            # A file that is renamed while its directory is read may be seen under neither name: look twice.
            more, more_parts = self._spool.list_shard(name)
            instances, parts = list({*instances, *more}), parts + more_parts
        found = set(instances)
        if shard is None:
            shard = self._shards[name] = _Shard(on_record=set(self._find_on_record(instances)))
        shard.missing = found - shard.on_record
        shard.transit = set(parts) - found
        shard.settled_mtime_ns = mtime_ns if settled else -1


def _serial(shard: str) -> tuple[int, str]:
    """Orders one writer's shards, also when the wall clock was set back between them."""
    serial = shard.rpartition("-")[2]
    return len(serial), serial


def _is_settled(mtime_ns: int) -> bool:
    return time.time_ns() - mtime_ns > _SETTLED_SECONDS * NANOSECONDS


def _mtime_ns(path: str | os.PathLike[str]) -> int:
    with contextlib.suppress(FileNotFoundError):
        return os.stat(path).st_mtime_ns
    return -1
