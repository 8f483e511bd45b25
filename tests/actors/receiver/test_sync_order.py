"""The order of a receiver's system calls, as the kernel saw them: no answer before its object survives a power cut."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.receiver import lane
from actors.receiver.pace import NO_DIRECT_WRITES
from tests.actors.launcher import Launcher, RunningActor
from tests.actors.receiver.raw import Peer, allow, dataset, store_rq

OBJECTS = 20
_CALLS = "mkdir,openat,fcntl,write,writev,pwrite64,pwritev,fsync,fdatasync,rename,io_submit,io_getevents,sendto,sendmsg"
_ANSWER = r"\4\0\0\0"  # the beginning of a P-DATA-TF, as strace prints it
_PLACE = r"instances/([^/\"<>]+)"
_OBJECT = re.compile(rf"{_PLACE}/([^/\"<>]+)\.(part|dcm)")

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed: make peers")


@contextlib.contextmanager
def traced(actor: RunningActor, output: Path) -> Iterator[None]:
    """Write an actor's calls down while the block lasts."""
    command = ["strace", "-f", "-y", "-s", "16", "-o", str(output), "-e", f"trace={_CALLS}", "-p", str(actor.pid)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr is not None
        said = tracer.stderr.readline()
        if "Operation not permitted" in said:
            pytest.skip("this machine does not let processes be traced")
        assert "attached" in said, said
        try:
            yield
        finally:
            tracer.send_signal(signal.SIGTERM)
            tracer.stderr.read()


class Disk:
    """What would be on the disk, followed through the calls.

    A sync covers what was done before it was asked for, once it has ended without an error.
    """

    def __init__(self) -> None:
        self._unsynced: set[str] = set()  # files with data, and directories with names, that a cut would lose
        self._running: dict[str, str] = {}  # syncs that were asked for, by their number
        self._covered: dict[str, set[str]] = {}
        self._named: set[str] = set()
        self.answers = 0
        self.direct = 0  # objects that went past the page cache
        self.asynchronous = 0  # syncs
        self.is_slow = False  # the receiver held it for slow, and went the way of such disks
        self.faults: list[str] = []

    def read(self, line: str) -> None:
        """The next line of the trace."""
        call = line.split(None, 1)[1]
        name = call.partition("(")[0]
        if name == "mkdir" and (made := re.search(_PLACE, call)):
            self._unsynced.add(f"name of {made[1]}")
        elif name in ("write", "writev", "pwrite64", "pwritev") and (written := _OBJECT.search(call)):
            self._unsynced.add(f"data of {written[2]}")
        elif name == "rename" and (renamed := _OBJECT.search(call)):
            if f"data of {renamed[2]}" in self._unsynced:
                self.faults.append(f"{renamed[2]} got its name before its data was synced")
            self._unsynced.add(f"name of {renamed[2]} in {renamed[1]}")
            self._named.add(renamed[2])
        elif name in ("fsync", "fdatasync") and call.endswith("= 0\n"):
            self._unsynced -= self._covered_by(call)
        elif name == "fcntl" and "O_DIRECT" in call and call.endswith("= 0\n"):
            self.direct += 1
        elif name == "io_submit":
            self.asynchronous += 1
            for number, target in re.findall(
                r"aio_data=(\w+), aio_lio_opcode=IOCB_CMD_FD?SYNC, (aio_fildes=[^}]+)", call
            ):
                self._covered[number] = self._covered_by(target)
        elif name == "io_getevents":
            for number in re.findall(r"data=(\w+), obj=\w+, res=0", call):
                self._unsynced -= self._covered.pop(number)
        elif name in ("sendto", "sendmsg") and f'"{_ANSWER}' in call:
            self.answers += 1
            if self.answers > self._durable():
                self.faults += [f"answer {self.answers} came before the sync of {what}" for what in self._unsynced]

    def _durable(self) -> int:
        """How many objects would survive a cut; none while the name of a shard would not."""
        if any(" in " not in what and what.startswith("name of ") for what in self._unsynced):
            return 0
        return sum(not any(name in what for what in self._unsynced) for name in self._named)

    def _covered_by(self, target: str) -> set[str]:
        """What a sync of this file or directory would save now."""
        if found := _OBJECT.search(target):
            return {f"data of {found[2]}"} & self._unsynced
        if found := re.search(_PLACE, target):
            return {what for what in self._unsynced if what.endswith(f" in {found[1]}")}
        if re.search(r"/instances>", target):
            return {what for what in self._unsynced if " in " not in what and what.startswith("name of ")}
        return set()


def whole_calls(trace: Path) -> Iterator[str]:
    """The lines of a trace; a call that was interrupted by another thread's stands where it has ended."""
    begun: dict[str, str] = {}
    for line in trace.open():
        pid = line.split(None, 1)[0]
        if line.endswith(" <unfinished ...>\n"):
            begun[pid] = line.removesuffix(" <unfinished ...>\n")
        elif resumed := re.match(r"\d+ +<\.\.\. \w+ resumed>(.*)", line, re.DOTALL):
            yield begun.pop(pid) + resumed[1]
        else:
            yield line


def follow(directory: Path, *, sync: bool, direct: bool = True, padding: int = 2000, peers: int = 1) -> Disk:
    trace, disk = directory / "trace", Disk()
    environment = {NO_DIRECT_WRITES: "" if direct else "1"}
    with Launcher(directory, f"DicomAdapter.storage.syncOnStore={sync}", environment=environment) as launcher:
        allow(launcher.spool, "CT")
        receiver = launcher.start("receiver-1")
        with contextlib.ExitStack() as stack:
            those = [stack.enter_context(Peer(launcher.port)) for _ in range(peers)]
            for peer in those:
                peer.associate()
            with traced(receiver, trace):
                for number in range(OBJECTS):
                    for which, peer in enumerate(those):
                        uid = f"1.2.{number}.{which}"
                        peer.command(store_rq(uid))
                        peer.dataset(dataset(uid, padding=padding))
                    assert {peer.response().status for peer in those} == {0}
            for peer in those:
                peer.release()
            disk.is_slow = "disk_is_slow" in receiver.log_text()
    for line in whole_calls(trace):
        disk.read(line)
    assert disk.answers == OBJECTS * peers
    return disk


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "beside-others"])
@pytest.mark.parametrize("padding", [2000, 200_000, 2_500_000])
def test_no_answer_before_both_syncs(tmp_path: Path, direct: bool, padding: int) -> None:
    disk = follow(tmp_path, sync=True, direct=direct, padding=padding)
    assert disk.faults == []
    if not direct or lane.NOT_USED:
        assert not disk.direct
        return
    assert disk.asynchronous < OBJECTS or disk.is_slow  # the first object makes the form
    if padding >= 65_536 and _takes_direct_writes(tmp_path):
        assert disk.direct


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "beside-others"])
@pytest.mark.parametrize("padding", [2000, 200_000])
def test_no_answer_before_both_syncs_of_many(tmp_path: Path, direct: bool, padding: int) -> None:
    disk = follow(tmp_path, sync=True, direct=direct, padding=padding, peers=6)
    assert disk.faults == []
    if padding < 65_536:
        # What is small is synced at the end of a turn.
        assert disk.is_slow or (disk.asynchronous == 0 if direct else disk.asynchronous > 6 * OBJECTS)


def _takes_direct_writes(directory: Path) -> bool:
    try:
        fd = os.open(directory / "direct", os.O_CREAT | os.O_WRONLY | os.O_DIRECT)
    except OSError:
        return False
    os.close(fd)
    return True


def test_without_syncs_the_trace_says_so(tmp_path: Path) -> None:
    """Otherwise the test above could not fail."""
    faults = follow(tmp_path, sync=False).faults
    assert sum("before its data was synced" in fault for fault in faults) == OBJECTS
    assert sum(fault.startswith(f"answer {OBJECTS} ") for fault in faults) > OBJECTS
