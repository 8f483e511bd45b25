"""Looks now and then at what pipelines have written, while they go on: the quota is kept by it."""

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from actors.platform.attempt import Attempt
from actors.platform.usage import Usage

if TYPE_CHECKING:
    from actors.platform.platform import Platform

_LOOK_SECONDS = 2.0
_LOOK_SHARE = 0.05  # of the time may go into looking


class Written:
    """Looks in a thread, and again after a pause.

    Args:
        actor: whose loop and threads are used.
        usage: told what each run has written.
        going_on: the tries that go on now, by their runs' IDs.
    """

    def __init__(self, actor: "Platform", usage: Usage, going_on: Callable[[], Mapping[str, Attempt]]) -> None:
        self._actor = actor
        self._usage = usage
        self._going_on = going_on
        actor.after(_LOOK_SECONDS, self._look)

    def _look(self) -> None:
        going_on = self._going_on()

        def look() -> None:
            began = time.monotonic()
            written = {run_id: attempt.written_bytes() for run_id, attempt in going_on.items()}
            pause = max(_LOOK_SECONDS, (time.monotonic() - began) / _LOOK_SHARE)
            self._actor.post(lambda: self._note(written, pause))

        self._actor.in_thread(look)

    def _note(self, written: Mapping[str, int], pause: float) -> None:
        for run_id, count in written.items():
            self._usage.written(run_id, count)
        self._actor.after(pause, self._look)
