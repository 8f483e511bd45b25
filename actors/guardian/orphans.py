"""Removes what a crash has left in the spool and nothing refers to. What may still have to be delivered is no orphan.

A round goes through these, a directory a step:

    .access.json.*        a new access list whose writer was killed before it had its name
    writers/*.lock        of processes that are dead, and what these had in transit
    instances/SHARD/*     files whose row is in the history: their jobs had them, or a person gave them up
    arrivals/SHARD/*      that no C-MOVE of ours waits for any more; the archive has them
    requests/JOB/         of a request that is not on record; its sources have what is in it
    platform/PAYLOAD/     of a run that never came on record: nothing but directories and second names of instances

A file among the instances that is in no table was acknowledged and waits to be described: the processor finds it. A
payload that holds the only copy of something is told of and kept, for it can only come from a ledger that was lost.
"""

import contextlib
import os
import shutil
import stat
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec

from actors.guardian.reclaim import remove_request
from protocol.ledger import (
    PAGE_ROWS,
    InferenceRequest,
    Instance,
    InstanceHistory,
    Run,
    SealedShard,
    Submission,
    pages,
    tuples,
)
from protocol.spool import Spool, sync_directory

_PUT_ASIDE = ".orphan-"


class Removed(msgspec.Struct, frozen=True, kw_only=True):
    """What one step has removed.

    Args:
        what: for the log.
        count: files, or directories of payloads.
        bytes: of instances among them.
    """

    what: str
    count: int
    bytes: int = 0


class Orphans:
    """Looks for orphans. The ledger is only read.

    Args:
        spool: where they are.
        age_seconds: nothing that is younger is an orphan, since its writer may be about to tell of it.
    """

    def __init__(self, spool: Spool, age_seconds: float) -> None:
        self._spool = spool
        self._age_seconds = age_seconds
        self.unknown: set[str] = set()  # payloads that no table knows and that hold the only copy of something

    def steps(self) -> Iterator[Removed]:
        """One round; each step is short.

        Raises:
            peewee.PeeweeException: the ledger does not answer.
            OSError: something cannot be removed, or read.
        """
        yield self._remove_unfinished_access()
        yield self._remove_dead_parts()
        for shard in sorted(os.listdir(self._spool.instances)):
            yield self._remove_reclaimed(shard)
        arrivals = self._spool.arrivals()
        for shard in sorted(os.listdir(arrivals.instances)):
            yield self._remove_arrivals(arrivals, shard)
        yield self._remove_requests()
        names = sorted(os.listdir(self._spool.platform))
        for start in range(0, len(names), PAGE_ROWS):
            yield self._remove_payloads(names[start : start + PAGE_ROWS])

    def _remove_unfinished_access(self) -> Removed:
        prefix, count = f".{self._spool.access.name}.", 0
        for name in os.listdir(self._spool.root):
            if name.startswith(prefix) and self._is_old(self._spool.root / name):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._spool.root / name)
                    count += 1
        return Removed(what="unfinished access lists", count=count)

    def _remove_dead_parts(self) -> Removed:
        """What dead writers had in transit; their locks go along."""
        sealed = {row.shard for page in pages(SealedShard.select().namedtuples(), SealedShard.shard) for row in page}
        # Who lives is asked after the listing: a shard of a writer that is born meanwhile is not in it.
        shards = self._spool.open_shards(sealed)
        alive = self._spool.living_writers()
        count = self._spool.remove_parts(alive, shards) + self._spool.arrivals().remove_parts(alive)
        return Removed(what="parts of dead receivers", count=count)

    def _remove_reclaimed(self, shard: str) -> Removed:
        """Instances whose rows are in the history, which is where the processor puts them when all had them."""
        count = size = 0
        # The listing first: what is stored later is not in it, and a row moves to the history in one transaction.
        instances = self._spool.list_shard(shard)[0]
        for start in range(0, len(instances), PAGE_ROWS):
            page = set(instances[start : start + PAGE_ROWS])
            page -= _found(Instance, page)
            for identifier in _found(InstanceHistory, page) if page else ():
                path = self._spool.instance_path(identifier)
                with contextlib.suppress(FileNotFoundError):
                    size += os.stat(path).st_size
                    os.unlink(path)
                    count += 1
        if count:
            sync_directory(self._spool.instances / shard)
        return Removed(what="reclaimed instances", count=count, bytes=size)

    def _remove_arrivals(self, arrivals: Spool, shard: str) -> Removed:
        """What came late, or twice; a shard that is empty then goes with it."""
        count = size = 0
        for identifier in arrivals.list_shard(shard)[0]:
            path = Path(arrivals.instance_path(identifier))
            if self._is_old(path):
                with contextlib.suppress(FileNotFoundError):
                    size += path.stat().st_size
                    path.unlink()
                    count += 1
        if self._is_old(arrivals.instances / shard):
            with contextlib.suppress(OSError):  # not empty; its writer makes a new one if it must
                os.rmdir(arrivals.instances / shard)
        return Removed(what="arrivals that nobody waits for", count=count, bytes=size)

    def _remove_requests(self) -> Removed:
        names = {name for name in os.listdir(self._spool.requests) if not name.startswith(".")}
        suspects = [name for name in sorted(names) if self._is_old(self._spool.requests / name)]
        count = size = 0
        for start in range(0, len(suspects), PAGE_ROWS):
            page = suspects[start : start + PAGE_ROWS]
            query = InferenceRequest.select(InferenceRequest.job_id).where(InferenceRequest.job_id.in_(page))
            for name in sorted(set(page) - {row[0] for row in tuples(query)}):
                freed = remove_request(self._spool, name)
                count, size = count + freed[0], size + freed[1]
        return Removed(what="files of requests that are not on record", count=count, bytes=size)

    def _remove_payloads(self, names: list[str]) -> Removed:
        count = 0
        homes = (self._spool.platform / name for name in names)
        suspects = {home.name for home in homes if home.is_dir() and self._is_old(home)}
        for name in sorted(suspects - _known_payloads(suspects)):
            if _holds_only_copies(self._spool.platform / name):
                self.unknown.add(name)
            else:
                count += self._remove_payload(name)
        return Removed(what="payloads without a run", count=count)

    def _remove_payload(self, name: str) -> int:
        """Put a payload aside, so that nobody begins to use it; remove it if it is still unknown, and return 1 then."""
        payload_id = name.removeprefix(_PUT_ASIDE)
        home, aside = self._spool.platform / payload_id, self._spool.platform / f"{_PUT_ASIDE}{payload_id}"
        if name == payload_id:
            os.rename(home, aside)
        if _known_payloads({payload_id}):
            with contextlib.suppress(OSError):  # it has a new directory already, which is as good
                os.rename(aside, home)
            return 0
        shutil.rmtree(aside)
        return 1

    def _is_old(self, path: Path) -> bool:
        try:
            return time.time() - path.lstat().st_mtime >= self._age_seconds
        except FileNotFoundError:
            return False


def _found(table: type[Instance] | type[InstanceHistory], identifiers: set[str]) -> set[str]:
    """Of at most a page of identifiers, those that a table has."""
    return {row[0] for row in tuples(table.select(table.identifier).where(table.identifier.in_(identifiers)))}


def _known_payloads(names: set[str]) -> set[str]:
    """Of at most a page of payloads, those that the platform or the submitter knows."""
    if not names:
        return set()
    known: set[str] = set()
    for table in (Run, Submission):
        known |= {row[0] for row in tuples(table.select(table.payload_id).where(table.payload_id.in_(names)))}
    return known


def _holds_only_copies(home: Path) -> bool:
    """Whether anything would be lost with a payload: a file all of whose names are in it, or what is no file."""
    names: Counter[int] = Counter()
    links: dict[int, int] = {}
    waiting = [home]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    waiting.append(Path(entry.path))
                elif stat.S_ISREG(status.st_mode):
                    names[status.st_ino] += 1
                    links[status.st_ino] = status.st_nlink
                else:
                    return True
    return any(links[inode] <= count for inode, count in names.items())
