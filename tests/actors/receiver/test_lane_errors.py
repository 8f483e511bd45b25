"""Storage that fails in the lane, and how long a peer has then; each as without the lane."""

import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from actors.receiver import lane
from tests.actors.launcher import RunningActor, wait_until
from tests.actors.receiver import raw
from tests.actors.receiver.raw import P_DATA, Peer, dataset, pdu, pdv
from tests.actors.receiver.twins import Twin, Twins, receive_queue, request

pytestmark = pytest.mark.skipif(bool(lane.NOT_USED), reason=f"there is no lane: {lane.NOT_USED}")

_PDU_SECONDS = 1.5  # of SHORT_LIMITS
_FAILS_AT_CLOSE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int close(int fd)
{
    static int (*real)(int);
    char link[64], path[512];
    if (!real)
        real = dlsym(RTLD_NEXT, "close");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    int result = real(fd);
    if (length > 5 && !memcmp(path + length - 5, ".part", 5) && !access(getenv("CLOSE_FAILS"), F_OK)) {
        errno = ENOSPC;
        return -1;
    }
    return result;
}
"""


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twins]:
    with Twins(tmp_path_factory.mktemp("twins"), sync=False) as running:
        yield running


def _limit_files(receiver: RunningActor, most: int) -> None:
    resource.prlimit(receiver.pid, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))


def _send(twin: Twin, peer: Peer, data: bytes) -> None:
    """Send, and wait until all of it was received."""
    port = peer.socket.getsockname()[1]
    peer.send(data)
    wait_until(lambda: not receive_queue(twin.launcher.port, port), "the receiver to take what was sent")


def _abort_after(peer: Peer) -> float:
    """Seconds until the receiver aborts."""
    started = time.monotonic()
    assert peer.socket.recv(1) == bytes([raw.ABORT])
    return time.monotonic() - started


def _in_both(twins: Twins, act: Callable[[Twin, Peer], object]) -> list[object]:
    """What comes of the same in both receivers."""
    results = []
    for twin in twins:
        with twin.entered() as peer:
            try:
                results.append(act(twin, peer))
            finally:
                _limit_files(twin.receiver, resource.RLIM_INFINITY)
        assert not twin.in_transit()
    return results


def test_what_follows_a_failed_object_in_the_same_receive_is_walked_before_the_lane_is_entered(twins: Twins) -> None:
    """The second object has the bytes of a request in its pixels, which begin a receive."""

    def act(twin: Twin, peer: Peer) -> list[int]:
        inner = request("1.2.99")
        whole = pdu(P_DATA, pdv(1, 2, dataset("1.2.4", padding=100) + inner + bytes(2900)))
        cut = len(whole) - len(inner) - 2900
        _limit_files(twin.receiver, 2000)
        failing = request("1.2.3") + pdu(P_DATA, pdv(1, 2, dataset("1.2.3", padding=3000)))
        _send(twin, peer, failing + request("1.2.4") + whole[:cut])
        statuses = [peer.response().status]
        _limit_files(twin.receiver, resource.RLIM_INFINITY)
        for piece in (whole[cut : cut + len(inner)], whole[cut + len(inner) :]):
            _send(twin, peer, piece)
        return [*statuses, peer.response().status]

    assert _in_both(twins, act) == [[0xA700, 0], [0xA700, 0]]


def test_a_pdu_in_which_storage_fails_keeps_its_own_deadline(twins: Twins) -> None:
    """It began in the receive that failed."""

    def act(twin: Twin, peer: Peer) -> float:
        _limit_files(twin.receiver, 800)
        _send(twin, peer, request("1.2.3"))
        peer.send(pdu(P_DATA, pdv(1, 2, dataset("1.2.3", padding=9000)))[:3000])
        return _abort_after(peer)

    for seconds in _in_both(twins, act):
        assert _PDU_SECONDS - 0.1 < seconds < 2 * _PDU_SECONDS  # type: ignore[operator]


def test_a_pdu_in_which_storage_fails_has_not_the_deadline_of_the_one_before(twins: Twins) -> None:
    """The first had nearly all of its time when the second began."""

    def act(twin: Twin, peer: Peer) -> int:
        data = dataset("1.2.3", padding=9000)
        first, second = pdu(P_DATA, pdv(1, 0, data[:2000])), pdu(P_DATA, pdv(1, 2, data[2000:]))
        _limit_files(twin.receiver, 4000)
        _send(twin, peer, request("1.2.3") + first[:1000])
        time.sleep(_PDU_SECONDS - 0.4)
        _send(twin, peer, first[1000:] + second[:5000])
        time.sleep(_PDU_SECONDS - 0.6)
        peer.send(second[5000:])
        return peer.response().status

    assert _in_both(twins, act) == [0xA700, 0xA700]


@pytest.mark.parametrize("count", [6, 8, 12, 40])
def test_a_request_that_does_not_come_whole_has_the_time_of_one_pdu(twins: Twins, count: int) -> None:
    def act(_: Twin, peer: Peer) -> float:
        peer.send(request("1.2.3")[:count])
        return _abort_after(peer)

    for seconds in _in_both(twins, act):
        assert _PDU_SECONDS - 0.1 < seconds < 2 * _PDU_SECONDS - 0.1  # type: ignore[operator]


@pytest.mark.parametrize("header", ["0400ffffffff", "040000000004", "040000000005"])
def test_a_pdu_of_no_good_length_is_not_waited_for(twins: Twins, header: str) -> None:
    def act(_: Twin, peer: Peer) -> float:
        peer.send(bytes.fromhex(header))
        return _abort_after(peer)

    for seconds in _in_both(twins, act):
        assert seconds < _PDU_SECONDS / 2  # type: ignore[operator]


def test_a_file_system_that_tells_at_close_that_data_was_lost_is_believed(tmp_path: Path) -> None:
    """As NFS does, and some quotas."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler to make such a file system with")
    source, library = tmp_path / "close.c", tmp_path / "close.so"
    source.write_text(_FAILS_AT_CLOSE)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    fails = tmp_path / "fails"
    environment = {"LD_PRELOAD": str(library), "CLOSE_FAILS": str(fails)}
    with Twins(tmp_path, sync=False, environment=environment) as twins:

        def act(_: Twin, peer: Peer) -> list[int]:
            fails.touch()
            statuses = [peer.store(f"1.2.{number}").status for number in range(3)]
            fails.unlink()
            return [*statuses, peer.store("1.2.4").status]

        assert _in_both(twins, act) == [[0xA700, 0xA700, 0xA700, 0]] * 2
