"""A healthy association beside whatever goes on: it delivers at a steady pace, and knows how it was served."""

import threading
import time

from tests.faults.scu import SUCCESS, Association, make_dataset
from tests.samples import new_uid

PACE_SECONDS = 0.05
_BYTES = 20_000


class Bystander(threading.Thread):
    """One association that never ends, with an object every so often, until the block ends.

    Args:
        port: on 127.0.0.1.
        called: the called AE title.
    """

    def __init__(self, port: int, called: str) -> None:
        super().__init__(name="bystander", daemon=True)
        self._association = Association(port, called=called, calling="MODALITY")
        self._study = new_uid()
        self._over = threading.Event()
        self.served: list[tuple[float, float]] = []  # monotonic time of each answer, and how long it took
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._over.wait(PACE_SECONDS):
                uid = new_uid()
                began = time.monotonic()
                status = self._association.store(uid, make_dataset(uid, self._study, "PAT-BYSTANDER", bytes(_BYTES)))
                assert status == SUCCESS, f"0x{status:04X}"
                self.served.append((time.monotonic(), time.monotonic() - began))
        except BaseException as error:  # shown by `seconds_since`
            self.failure = error

    def seconds_since(self, since: float) -> list[float]:
        """How long each answer took since a moment on the monotonic clock, in their order of time."""
        if self.failure is not None:
            raise AssertionError("the healthy association broke") from self.failure
        return sorted(took for at, took in self.served if at >= since)

    def __enter__(self) -> "Bystander":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join(30.0)
        self._association.close()
