"""A disk that does not do what the lane asks of it: direct writes, and syncs at once."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from actors.receiver import lane
from tests.actors.receiver.raw import dataset, patterned_dataset
from tests.actors.receiver.twins import Twin

pytestmark = pytest.mark.skipif(bool(lane.NOT_USED), reason=f"there is no lane: {lane.NOT_USED}")

_FULL = 0xA700
_SIZES = (200, 70_000, 300_000, 1_500_000)
_FAULTS = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int is(const char *fault)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", getenv("DISK_FAULTS"), fault);
    return !access(path, F_OK);
}

static int stands_for(int fd, const char *part)
{
    char link[64], path[512] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    return readlink(link, path, sizeof path - 1) > 0 && strstr(path, part) != NULL;
}

ssize_t write(int fd, const void *data, size_t size)
{
    static ssize_t (*real)(int, const void *, size_t);
    if (!real)
        real = dlsym(RTLD_NEXT, "write");
    if (stands_for(fd, ".part") && fcntl(fd, F_GETFL) & O_DIRECT) {
        int error = is("direct-refused") ? EINVAL : is("direct-full") ? ENOSPC : is("direct-broken") ? EIO : 0;
        if (error) {
            errno = error;
            return -1;
        }
        if (is("direct-short") && size > 8192) {
            /* As a disk that is nearly full; the length is none of whole blocks. */
            int flags = fcntl(fd, F_GETFL);
            fcntl(fd, F_SETFL, flags & ~O_DIRECT);
            ssize_t written = real(fd, data, 5000);
            fcntl(fd, F_SETFL, flags);
            return written;
        }
        if (is("direct-blocks") && size > 4096)
            return real(fd, data, 4096);
    }
    return real(fd, data, size);
}

int fdatasync(int fd)
{
    static int (*real)(int);
    if (!real)
        real = dlsym(RTLD_NEXT, "fdatasync");
    if (stands_for(fd, ".part") && is("data-sync")) {
        errno = EIO;
        return -1;
    }
    return real(fd);
}

int fsync(int fd)
{
    static int (*real)(int);
    if (!real)
        real = dlsym(RTLD_NEXT, "fsync");
    if (stands_for(fd, "/instances/") && is("directory-sync")) {
        errno = EIO;
        return -1;
    }
    return real(fd);
}
"""


class Disk:
    """A receiver whose disk has the faults whose names are files in a directory."""

    def __init__(self, receiver: Twin, faults: Path) -> None:
        self.receiver = receiver
        self._faults = faults

    def statuses(self, fault: str, data: Callable[[str], bytes], count: int = 3) -> list[int]:
        """Of objects that come while there is a fault, and of one behind it."""
        with self.receiver.entered() as peer:
            (self._faults / fault).touch()
            found = [peer.store(f"1.2.{number}", data(f"1.2.{number}")).status for number in range(count)]
            (self._faults / fault).unlink()
            found.append(peer.store("1.2.9", data("1.2.9")).status)
            peer.release()
        assert not self.receiver.in_transit()
        return found

    def ends_with(self, data: bytes) -> int:
        """How many instances do."""
        return sum(path.read_bytes().endswith(data) for path in self.receiver.launcher.spool.instances.glob("*/*.dcm"))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Such a disk."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler to make such a disk with")
    directory = tmp_path_factory.mktemp("disk")
    source, made = directory / "disk.c", directory / "disk.so"
    source.write_text(_FAULTS)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", made, source, "-ldl"], check=True)
    return made


@pytest.fixture
def disk(tmp_path: Path, library: Path) -> Iterator[Disk]:
    faults = tmp_path / "faults"
    faults.mkdir()
    environment = {"LD_PRELOAD": str(library), "DISK_FAULTS": str(faults)}
    with Twin(tmp_path / "twin", "DicomAdapter.storage.syncOnStore=true", lane=True, environment=environment) as twin:
        yield Disk(twin, faults)


@pytest.mark.parametrize("fault", ["direct-refused", "direct-short", "direct-blocks"])
@pytest.mark.parametrize("size", _SIZES)
def test_what_direct_writes_leave_goes_the_usual_way(disk: Disk, fault: str, size: int) -> None:
    assert disk.statuses(fault, lambda uid: patterned_dataset(uid, size)) == [0, 0, 0, 0]
    for number in (0, 1, 2, 9):
        assert disk.ends_with(patterned_dataset(f"1.2.{number}", size)) == 1


@pytest.mark.parametrize("fault", ["direct-full", "direct-broken"])
def test_a_direct_write_that_fails_is_no_success(disk: Disk, fault: str) -> None:
    for size in _SIZES[1:]:
        assert disk.statuses(fault, lambda uid, size=size: dataset(uid, padding=size)) == [_FULL, _FULL, _FULL, 0]


@pytest.mark.parametrize("size", _SIZES)
def test_a_file_whose_sync_fails_gets_no_name(disk: Disk, size: int) -> None:
    assert disk.statuses("data-sync", lambda uid: patterned_dataset(uid, size)) == [_FULL, _FULL, _FULL, 0]
    for number in range(3):
        assert disk.ends_with(patterned_dataset(f"1.2.{number}", size)) == 0


@pytest.mark.parametrize("size", _SIZES)
def test_a_directory_whose_sync_fails_is_no_success(disk: Disk, size: int) -> None:
    """The file has its name then, so that the sender's next try is a repeat of it."""
    assert disk.statuses("directory-sync", lambda uid: dataset(uid, padding=size)) == [_FULL, _FULL, _FULL, 0]
