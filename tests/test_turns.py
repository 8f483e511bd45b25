"""Turns: most tests run beside each other, some alone, and none waits for ever."""

import threading
from pathlib import Path

from tests.peers import wait_for
from tests.turns import turn


class Runner(threading.Thread):
    """A test of another worker, which lasts until it is told to end."""

    def __init__(self, directory: Path, *, alone: bool) -> None:
        super().__init__()
        self.directory, self.alone = directory, alone
        self.runs, self.end = threading.Event(), threading.Event()
        self.start()

    def run(self) -> None:
        with turn(self.directory, alone=self.alone):
            self.runs.set()
            self.end.wait(30)

    def finish(self) -> None:
        self.end.set()
        self.join(30)


def waits_at_the_turnstile() -> bool:
    """Whether one of the locks of this process is waited for."""
    return any("->" in line for line in Path("/proc/locks").read_text().splitlines())


def test_others_run_beside_each_other_and_one_runs_alone(tmp_path: Path) -> None:
    first, second = Runner(tmp_path, alone=False), Runner(tmp_path, alone=False)
    assert first.runs.wait(10)
    assert second.runs.wait(10)

    alone = Runner(tmp_path, alone=True)
    wait_for(waits_at_the_turnstile, 10, "the one that wants to be alone to wait")
    late = Runner(tmp_path, alone=False)
    first.finish()
    assert not alone.runs.is_set()
    second.finish()
    assert alone.runs.wait(10)
    assert not late.runs.is_set()  # who asked later comes later
    alone.finish()
    assert late.runs.wait(10)
    late.finish()
