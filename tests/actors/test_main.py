"""The process around an actor: what nobody foresaw ends in one marked line, and no exception's message beside it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from protocol.birth import Birth
from tests.actors.launcher import REPOSITORY, Launcher

_PROGRAM = """
import sys, threading, types
import actors.__main__

class Receiver:
    needs_capabilities = True

    def __init__(self, birth, settings):
        pass

    def run(self):
        def fail():
            raise ValueError("Doe^Jane")
        where = sys.argv[1]
        if where == "thread":
            failing = threading.Thread(target=fail)
            failing.start()
            failing.join()
        else:
            fail()

module = sys.modules["actors.receiver.receiver"] = types.ModuleType("actors.receiver.receiver")
module.Receiver = Receiver
sys.exit(actors.__main__.main())
"""


@pytest.mark.parametrize(("where", "event", "code"), [("thread", "thread_failed", 0), ("loop", "actor_failed", 70)])
@pytest.mark.parametrize("level", ["Information", "Debug"])
def test_an_exceptions_message_is_told_at_debug_alone(
    tmp_path: Path, *, where: str, event: str, code: int, level: str
) -> None:
    with Launcher(tmp_path, f"Logging.LogLevel.Default={level}") as launcher:
        birth = Birth(
            name="receiver-1", runtime=str(launcher.runtime), lifeline=-1, alive=-1, board=-1, row=0, listeners=()
        )
        ended = subprocess.run(
            [sys.executable, "-c", _PROGRAM, where],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            env={**os.environ, **birth.environment()},
        )
    assert (ended.returncode, ended.stderr) == (code, "")
    marked, *more = ended.stdout.splitlines()
    assert f"error: adapter.receiver [receiver-1] {event} marker=UNEXPECTED trace=" in marked
    assert "in fail | ValueError" in marked
    assert "Doe" not in marked
    told = [f"debug: adapter.receiver [receiver-1] {event}_message text=Doe^Jane"] if level == "Debug" else []
    assert [line.partition(" ")[2].partition(" ")[2] for line in more] == told
