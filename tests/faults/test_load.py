"""Many associations at once: idle ones cost next to nothing, and all that deliver are answered."""

import os
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.faults.scu import SUCCESS, Association, make_dataset
from tests.faults.trial import AE_TITLE, Trial
from tests.faults.victims import descriptors, threads
from tests.gateway import rss_peak_bytes
from tests.peers import wait_for
from tests.samples import new_uid

MOST = 1000  # the allowed maximum
_LARGEST_RSS_BYTES = 200_000_000
_LARGEST_SHARE = 0.03
_OPENERS = 16


def cpu_seconds(pid: int) -> float:
    """What a process has used until now (proc(5), /proc/PID/stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def shares(pids: Sequence[int], seconds: float) -> dict[int, float]:
    """Of one core, by process, while so many seconds pass."""
    before, began = {pid: cpu_seconds(pid) for pid in pids}, time.monotonic()
    wait_for(lambda: time.monotonic() - began >= seconds, seconds + 10.0, "passing of time", interval=0.5)
    passed = time.monotonic() - began
    return {pid: (cpu_seconds(pid) - before[pid]) / passed for pid in pids}


@contextmanager
def opened(port: int, count: int) -> Iterator[list[Association]]:
    """So many associations, opened a few at a time."""
    with ExitStack() as stack, ThreadPoolExecutor(_OPENERS) as pool:

        def open_one(_: int) -> Association:
            return Association(port, called=AE_TITLE, calling="MODALITY", seconds=120.0)

        found = list(pool.map(open_one, range(count)))
        for association in found:
            stack.callback(association.close)
        yield found


def deliver(associations: Sequence[Association], rounds: int) -> dict[int, int]:
    """All associations have an object in transit at once, again and again; how often which status came."""
    statuses: dict[int, int] = {}
    study = new_uid()
    for _ in range(rounds):
        objects = [(association, new_uid()) for association in associations]
        for association, uid in objects:
            association.request(uid, make_dataset(uid, study, "PAT-LOAD", bytes(4000)))
        for association, uid in objects:
            status = association.response(uid)
            statuses[status] = statuses.get(status, 0) + 1
    return statuses


def run(directory: Path, count: int, *, idle_seconds: float, rounds: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    settings = {"dicom.scp.maximumNumberOfAssociations": count, "dicom.scp.receivers": 2}
    with Trial(directory, settings) as trial:
        gateway = trial.gateway
        receivers = trial.victims.pids("receiver")
        measure: Callable[[], dict[int, tuple[int, int]]] = lambda: {  # noqa: E731 - twice the same
            pid: (descriptors(pid), threads(pid)) for pid in receivers
        }
        before = measure()
        with opened(gateway.port, count) as associations:
            assert gateway.status().active_associations == count
            idle = shares(receivers, idle_seconds)
            of_each = [actor.detail for actor in gateway.status().actors if actor.kind == "receiver"]
            began = time.monotonic()
            statuses = deliver(associations, rounds)
            seconds = time.monotonic() - began
            for association in associations:
                association.release()
        assert statuses == {SUCCESS: count * rounds}
        gateway.wait_for(lambda: gateway.status().active_associations == 0, 30.0, "end of all associations")

        def is_flat() -> bool:
            """A receiver that has stored something keeps one more descriptor, its shard's directory."""
            after = measure()
            return all(
                after[pid][0] <= files + 1 and after[pid][1] == running for pid, (files, running) in before.items()
            )

        gateway.wait_for(is_flat, 30.0, f"{before}, the descriptors and threads of before")
        assert trial.victims.pids("receiver") == receivers, "a receiver was replaced"
        peak = {pid: rss_peak_bytes(pid) for pid in receivers}
        trial.settle(240.0)
        (job,) = gateway.jobs()
        assert job["instances"] == count * rounds
    print(
        f"load: {count} associations ({', '.join(of_each)}); "
        f"idle CPU {max(idle.values()):.2%} of a core; {count * rounds} objects in {seconds:.1f} s, all Success; "
        f"RSS at most {max(peak.values()) / 1e6:.0f} MB"
    )
    assert max(idle.values()) < _LARGEST_SHARE
    assert max(peak.values()) < _LARGEST_RSS_BYTES


@pytest.mark.alone
def test_a_hundred_associations(tmp_path: Path) -> None:
    run(tmp_path, 100, idle_seconds=3.0, rounds=5)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.alone
def test_a_thousand_associations(tmp_path: Path) -> None:
    run(tmp_path, MOST, idle_seconds=20.0, rounds=10)


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_a_sender_that_never_stops_for_ten_minutes(tmp_path: Path) -> None:
    with Trial(tmp_path, quick=False) as trial:
        trial.send(4, study_objects=500, association_objects=100_000)
        gateway = trial.gateway
        pids = {actor.name: actor.pid for actor in gateway.status().actors if actor.pid is not None}
        began = time.monotonic()
        gateway.wait_for(lambda: time.monotonic() - began > 60.0, 90.0, "first minute")
        early = {name: (rss_peak_bytes(pid), descriptors(pid), threads(pid)) for name, pid in pids.items()}
        gateway.wait_for(lambda: time.monotonic() - began > 600.0, 650.0, "tenth minute")
        assert {actor.name: actor.pid for actor in gateway.status().actors} == pids, "a process was replaced"
        late = {name: (rss_peak_bytes(pid), descriptors(pid), threads(pid)) for name, pid in pids.items()}
        figures = trial.prove(300.0)
    print(f"load: ten minutes; {figures}")
    for name, (bytes_then, open_then, threads_then) in early.items():
        bytes_now, open_now, threads_now = late[name]
        print(f"load: {name}: {bytes_then / 1e6:.0f} → {bytes_now / 1e6:.0f} MB, {open_now} descriptors")
        assert bytes_now < 1.5 * bytes_then + 20e6, name
        assert open_now <= open_then + 20, name
        assert threads_now <= threads_then + 8, name
