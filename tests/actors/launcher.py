"""Runs real actor processes for tests, and does for them what the supervisor does.

    with Launcher(tmp_path, "DicomAdapter.storage.syncOnStore=false") as launcher:
        receiver = launcher.start("receiver-1")
        receiver.wait_for_log("association_ended")

The runtime directory, settings, spool, board and a listening socket are made for it; whatever is still running when
the block ends is killed, and a process that logged an unexpected exception fails the test.
"""

import contextlib
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from protocol import messages
from protocol.birth import Birth, settings_file
from protocol.board import Board
from protocol.config import Settings, encode, load
from protocol.spool import Spool
from tests import patients

REPOSITORY = Path(__file__).parents[2]
PATIENCE_SECONDS = 30.0
UNEXPECTED = "marker=UNEXPECTED"

Value = TypeVar("Value")


def wait_until(condition: Callable[[], Value], what: str, seconds: float = PATIENCE_SECONDS) -> Value:
    """Return the first true value of a condition that nothing can be waited on for; raise when time is up."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() >= deadline:
            raise AssertionError(f"waited {seconds:g} s in vain: {what}")
        time.sleep(0.01)
    return value


class RunningActor:
    """One actor process: what it logs, what it tells its supervisor, and its end."""

    def __init__(self, name: str, process: "subprocess.Popen[bytes]", lifeline: socket.socket, row: int = -1) -> None:
        self.name = name
        self.process = process
        self.row = row
        self.lines: list[str] = []
        self.told: list[messages.Message] = []
        self._lifeline = lifeline
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    def log_text(self) -> str:
        """Everything that it has logged so far."""
        with self._changed:
            return "\n".join(self.lines)

    def wait_for(self, condition: Callable[[], Value], what: str, seconds: float = PATIENCE_SECONDS) -> Value:
        """Wait for something that can only change when the actor logs or tells."""
        with self._changed:
            value = self._changed.wait_for(condition, seconds)
            if not value:
                raise AssertionError(f"{self.name}: waited {seconds:g} s in vain for {what}:\n" + "\n".join(self.lines))
            return value

    def wait_for_log(self, text: str, count: int = 1, seconds: float = PATIENCE_SECONDS) -> str:
        """Wait until `count` lines contain a text; return the last of them."""
        found = self.wait_for(
            lambda: matching if len(matching := [line for line in self.lines if text in line]) >= count else None,
            f"{count} log lines with {text!r}",
            seconds,
        )
        assert found
        return found[-1]

    def wait_ready(self, seconds: float = PATIENCE_SECONDS) -> Self:
        """Wait until it has reported ready."""
        self.wait_for(lambda: messages.Ready() in self.told or self.process.poll() is not None, "ready", seconds)
        assert messages.Ready() in self.told, f"{self.name} ended before it was ready:\n{self.log_text()}"
        return self

    def tell(self, message: messages.Message) -> None:
        """Say something as its supervisor."""
        self._lifeline.send(messages.encode(message))

    def drain(self, seconds: float) -> None:
        """Have it finish within so many seconds."""
        self.tell(messages.Drain(seconds=seconds))

    def abandon(self) -> None:
        """Close the lifeline, as a supervisor that was killed does."""
        self._lifeline.shutdown(socket.SHUT_RDWR)

    def wait_ended(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Wait for its end; return its exit code."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end in {seconds:g} s:\n{self.log_text()}") from None
        self._reader.join(seconds)
        return code

    def suspend(self) -> None:
        """Have it hang; on a busy machine a process goes on for a moment after the signal, hence the wait."""
        self.process.send_signal(signal.SIGSTOP)
        threads = Path(f"/proc/{self.pid}/task")

        def stopped() -> bool:
            with contextlib.suppress(OSError):  # a thread has just ended
                states = [(thread / "stat").read_text().rpartition(")")[2].split()[0] for thread in threads.iterdir()]
                return set(states) == {"T"}
            return False

        wait_until(stopped, f"{self.name} to hang")

    def resume(self) -> None:
        """Have it go on after `suspend`."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it by SIGKILL, if it has not ended; one that is suspended does nothing more before."""
        self.process.kill()
        self.wait_ended()

    def close(self) -> None:
        """Kill it, let go of its descriptors, and keep its log for the search for patient data."""
        self.kill()
        patients.collect(self.name, self.log_text())
        self._lifeline.close()
        assert self.process.stdout
        self.process.stdout.close()

    def _read(self) -> None:
        """Collect lines and messages until the process is gone (runs in a thread)."""
        decode = messages.decoder(messages.FromActor).decode
        assert self.process.stdout
        output = self.process.stdout.fileno()
        rest = b""
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            selector.register(self._lifeline, selectors.EVENT_READ)
            while selector.get_map():
                for key, _ in selector.select():
                    if key.fd == output:
                        data = os.read(output, 65536)
                        *lines, rest = (rest + data).split(b"\n")
                        with self._changed:
                            self.lines += [line.decode("utf-8", "replace") for line in lines]
                            self._changed.notify_all()
                    else:
                        data = self._hear()
                        if data:
                            with self._changed:
                                self.told.append(decode(data))
                                self._changed.notify_all()
                    if not data:
                        selector.unregister(key.fileobj)
        with self._changed:
            self._changed.notify_all()

    def _hear(self) -> bytes:
        try:
            return self._lifeline.recv(65536)
        except OSError:
            return b""


class Launcher:
    """The surroundings of actors: runtime directory, settings, spool, board, and the DICOM port's listening socket.

    Args:
        directory: of the test; the spool is its `spool`, the ledger its `ledger.db`.
        sets: settings as for `--set`, `DicomAdapter.dicom.scp.receivers=2`.
        environment: variables for the processes, over this process's own.
        storage: the spool's directory, when it shall not be below `directory`.
    """

    def __init__(
        self,
        directory: Path,
        *sets: str,
        environment: dict[str, str] | None = None,
        storage: Path | None = None,
    ) -> None:
        self.directory = directory
        # Not below `directory`: a socket's path is limited to 107 bytes.
        self.runtime = Path(tempfile.mkdtemp(prefix="dicom-adapter-"))
        self.spool = Spool(storage or directory / "spool")
        self.spool.create()
        self.environment = environment or {}
        self.actors: list[RunningActor] = []
        self.settings = self.change_settings(*sets)
        self.board = Board.create()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._alive_reading, self._alive_writing = os.pipe2(os.O_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
        if kind is None:
            for actor in self.actors:
                assert UNEXPECTED not in actor.log_text(), f"{actor.name}:\n{actor.log_text()}"
        else:
            for actor in self.actors:
                sys.stderr.write(f"--- {actor.name}\n{actor.log_text()}\n")

    @property
    def port(self) -> int:
        """The DICOM port."""
        port: int = self.listener.getsockname()[1]
        return port

    def change_settings(self, *sets: str) -> Settings:
        """Write new effective settings (all of them, as for a new start); running actors are told."""
        config = self.directory / "appsettings.json"
        config.write_text("{}")
        all_sets = [
            f"DicomAdapter.storage.temporary={self.spool.root}",
            f"DicomAdapter.runtimeDirectory={self.runtime}",
            f"ConnectionStrings.DicomAdapterDatabase=Data Source={self.directory / 'ledger.db'}",
            *sets,
        ]
        self.settings = load(config, None, all_sets, {}).settings
        settings_file(self.runtime).write_bytes(encode(self.settings))
        for actor in self.actors:
            if actor.process.poll() is None:
                actor.tell(messages.SettingsChanged())
        return self.settings

    def start(self, name: str, *, ready: bool = True) -> RunningActor:
        """Start an actor, `KIND` or `KIND-NUMBER`; wait until it is ready unless told not to."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        row = self.board.claim_row() if name.startswith("receiver") else -1
        assert row is not None
        birth = Birth(
            name=name,
            runtime=str(self.runtime),
            lifeline=theirs.fileno(),
            alive=self._alive_reading,
            board=self.board.fd,
            row=row,
            listeners=(self.listener.fileno(),) if row >= 0 else (),
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "actors"],
            cwd=REPOSITORY,
            env={**os.environ, **self.environment, **birth.environment()},
            pass_fds=birth.descriptors,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        theirs.close()
        actor = RunningActor(name, process, ours, row)
        self.actors.append(actor)
        return actor.wait_ready() if ready else actor

    def bury(self, actor: RunningActor) -> None:
        """After a receiver's end: free its row, as the supervisor does."""
        actor.wait_ended()
        self.board.clear_row(actor.row)

    def close(self) -> None:
        """Kill what runs, and remove the runtime directory; the spool stays."""
        for actor in self.actors:
            actor.close()
        self.listener.close()
        os.close(self._alive_reading)
        os.close(self._alive_writing)
        shutil.rmtree(self.runtime, ignore_errors=True)
