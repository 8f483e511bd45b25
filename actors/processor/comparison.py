"""Compares datasets on disk, byte for byte, in a thread of its own: they may be gigabytes."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from protocol.logs import EventLogger
from protocol.spool import Spool

_CHUNK_BYTES = 1 << 20

Place = tuple[str, int]
"""An instance's identifier, and the bytes before its dataset."""


class Comparer:
    """Finds out whether two instances have the same dataset, and remembers it until it was used.

    Args:
        spool: where they are.
        post: has the main loop call something.
        log: where files that cannot be read are told.
    """

    def __init__(self, spool: Spool, post: Callable[[Callable[[], None]], None], log: EventLogger) -> None:
        self._spool = spool
        self._post = post
        self._log = log
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="compare")
        self._verdicts: dict[str, dict[str, bool]] = {}
        self._stopped = False

    def verdict(self, new: str, held: str) -> bool | None:
        """Whether two instances are the same; None when that was not compared."""
        return self._verdicts.get(new, {}).get(held)

    def is_there(self, held: str) -> bool:
        """Whether the file of an instance is where it was stored."""
        return os.path.exists(self._spool.instance_path(held))

    def forget(self, new: str) -> None:
        """What was compared with an instance is not needed any more."""
        self._verdicts.pop(new, None)

    def start(self, new: Place, held: Place, done: Callable[[], None]) -> None:
        """Compare two instances whose datasets are of one length; `done` is called when there is a verdict."""

        def work() -> None:
            equal = self._equal(new, held)

            def tell() -> None:
                self._verdicts.setdefault(new[0], {})[held[0]] = equal
                done()

            if not self._stopped:
                self._post(tell)

        self._pool.submit(work)

    def stop(self) -> None:
        """End the thread; what it was doing is done again after the next start."""
        self._stopped = True
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _equal(self, new: Place, held: Place) -> bool:
        """A file that is gone, or cannot be read, is not the same as another."""
        try:
            with (
                open(self._spool.instance_path(new[0]), "rb", buffering=0) as one,
                open(self._spool.instance_path(held[0]), "rb", buffering=0) as other,
            ):
                one.seek(new[1], os.SEEK_SET)
                other.seek(held[1], os.SEEK_SET)
                while not self._stopped:
                    chunk = one.read(_CHUNK_BYTES)
                    if chunk != other.read(len(chunk) or 1):
                        return False
                    if not chunk:
                        return True
        except FileNotFoundError:
            return False
        except OSError as error:
            self._log.warning("instances_not_compared", identifier=new[0], held=held[0], reason=error.strerror)
        return False
