"""What runs leave behind is found and deleted, whatever its shape."""

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.platform.attempt import Attempt
from actors.platform.leftovers import remove_tree

DEEP = 1200  # more than a function may call itself


@pytest.fixture
def descriptors() -> Iterator[None]:
    """Enough for one of each directory of a nest."""
    limits = soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def nest(directory: Path, depth: int) -> None:
    """Make directories in each other below one that exists, with a file in the last one."""
    fd = os.open(directory, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=fd))
    os.close(fd)


@pytest.mark.usefixtures("descriptors")
def test_a_deep_nest_is_listed_and_deleted(tmp_path: Path) -> None:
    attempt = Attempt(tmp_path, 1)
    attempt.output.mkdir(parents=True)
    nest(attempt.output, DEEP)
    assert attempt.output_files() == ("d/" * DEEP + "file",)
    remove_tree(attempt.output)
    assert not attempt.output.exists()


def test_files_stand_before_those_of_the_directories_beside_them(tmp_path: Path) -> None:
    attempt = Attempt(tmp_path, 1)
    for name in ("b/2", "b/1", "a/x/1", "a/1", "z", "c"):
        (attempt.output / name).parent.mkdir(parents=True, exist_ok=True)
        (attempt.output / name).touch()
    (attempt.output / "link").symlink_to("z")
    assert attempt.output_files() == ("c", "z", "a/1", "a/x/1", "b/1", "b/2")


def test_a_link_is_deleted_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "link").symlink_to(tmp_path / "kept")
    remove_tree(tmp_path / "tree")
    assert not (tmp_path / "tree").exists()
    assert (tmp_path / "kept" / "file").exists()


def test_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    remove_tree(tmp_path / "nothing")
