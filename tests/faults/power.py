"""Power cuts: a file system on a recorded disk, and what any cut could have left of it.

Needs root, loop devices, FUSE and mkfs.ext4. A disk may lose any part of what was written since the last flush that it
answered, in any order, and tear what it does not lose; what it answered a flush for stays.
"""

import contextlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.faults.recorder import FLUSH, RECORD
from tests.peers import wait_for

_RECORDER = Path(__file__).with_name("recorder.py")
_SECTOR = 512


@dataclass(frozen=True)
class Write:
    """A record of the disk's log.

    Args:
        at_ns: wall time.
        offset: on the disk; None for a flush.
        data: what was written.
    """

    at_ns: int
    offset: int | None
    data: bytes


def impossible() -> str:
    """Why there can be no recorded disk on this machine; "" when there can."""
    if os.geteuid() != 0:
        return "only root may mount"
    for device in ("/dev/fuse", "/dev/loop-control"):
        if not Path(device).exists():
            return f"there is no {device}"
    for program in ("mkfs.ext4", "losetup", "mount"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    return _try_to_mount()


def _try_to_mount() -> str:
    with tempfile.TemporaryDirectory() as place:
        try:
            image = make_image(Path(place), 8)
            with mounted(image, Path(place) / "mnt"):
                return ""
        except subprocess.CalledProcessError as error:
            return f"{error.cmd[0]} does not work here: {error.stderr.strip()}"


def run(*words: str | Path) -> str:
    """A command that must succeed; what it wrote."""
    return subprocess.run([*map(str, words)], check=True, capture_output=True, text=True).stdout


def make_image(directory: Path, megabytes: int) -> Path:
    """A file with an empty ext4, whose journal is as small as can be, so that it is used again and again."""
    image = directory / "image"
    with image.open("wb") as file:
        file.truncate(megabytes * 1_000_000 // 4096 * 4096)
    run("mkfs.ext4", "-q", "-F", "-b", "4096", "-J", "size=4" if megabytes > 40 else "size=1", image)
    return image


@contextlib.contextmanager
def mounted(image: Path, place: Path) -> Iterator[None]:
    """An image's file system stands at a place while the block lasts."""
    place.mkdir(exist_ok=True)
    run("mount", "-o", "loop", image, place)
    try:
        yield
    finally:
        run("umount", place)


@contextlib.contextmanager
def recorded(directory: Path, image: Path, place: Path) -> Iterator[Path]:
    """The same, with every write of the disk on record; gives the log. The image itself stays as it is."""
    fuse, log = directory / "fuse", directory / "disk.log"
    fuse.mkdir()
    place.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        recorder = subprocess.Popen([sys.executable, "-I", "-S", _RECORDER, fuse, image, log])
        stack.callback(recorder.wait, 30.0)
        stack.callback(recorder.terminate)
        wait_for(fuse.is_mount, 10.0, "recorded disk")
        stack.callback(run, "umount", fuse)
        device = run("losetup", "--find", "--show", fuse / "disk").strip()
        stack.callback(run, "losetup", "--detach", device)
        run("mount", device, place)
        stack.callback(run, "umount", place)
        yield log


def read_log(log: Path) -> list[Write]:
    """All that was written."""
    found = []
    with log.open("rb") as file:
        while len(head := file.read(RECORD.size)) == RECORD.size:
            at_ns, offset, count = RECORD.unpack(head)
            found.append(Write(at_ns, None if offset == FLUSH else offset, file.read(count)))
    return found


def moments(log: list[Write], count: int, chance: random.Random) -> list[int]:
    """Numbers of records before which the power fails; half of them are flushes, when the disk has most to lose."""
    found = []
    for number in chance.sample(range(len(log) // 5, len(log)), count):
        flush = next((place for place in range(number, len(log)) if log[place].offset is None), number)
        found.append(chance.choice((number, flush)))
    return found


def cut(image: Path, log: list[Write], count: int, chance: random.Random, target: Path) -> int:
    """Make what a power cut behind the first `count` records may have left; returns how many writes it lost.

    Args:
        image: the disk's content before.
        log: all that was written.
        count: how many records the disk got.
        chance: decides what is lost and torn.
        target: the new image.
    """
    shutil.copyfile(image, target)
    flushed = max((place for place in range(count) if log[place].offset is None), default=0)
    share, lost = chance.choice((0.0, 0.3, 0.7, 1.0)), 0
    with target.open("r+b") as file:
        for place, write in enumerate(log[:count]):
            if write.offset is None:
                continue
            data = write.data
            if place > flushed and chance.random() < share:
                lost += 1
                # Torn: some of its sectors are there.
                data = data[: chance.randrange(len(data) // _SECTOR + 1) * _SECTOR] if chance.random() < 0.3 else b""
            file.seek(write.offset)
            file.write(data)
    return lost
