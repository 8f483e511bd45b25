"""Inputs: copies for the service's own user, links for another one, and never the spool's file for both to write."""

import os
import stat
from pathlib import Path

import pytest

from actors.platform.accounts import Account, account_of, check_reach
from actors.platform.inputs import Inputs
from actors.platform.leftovers import remove_tree
from protocol.errors import RefusedError
from protocol.spool import walk_files

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files to another group")


def other(gid: int) -> Account:
    return Account(name="other", uid=gid, gid=gid, groups=(gid,), home="/")


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    payload = tmp_path / "payload"
    for number in range(5):
        file = payload / "dcm" / "p" / f"s{number % 2}" / f"{number}.dcm"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes([number]) * (number * 100_000))
        file.chmod(0o440)
    return payload


def content(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in walk_files(directory)}


def test_a_copy_is_equal_read_only_and_another_file(payload: Path, tmp_path: Path) -> None:
    Inputs().make(payload, tmp_path / "input", account_of(""))
    assert content(tmp_path / "input") == content(payload)
    for path in walk_files(tmp_path / "input"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o440
        assert path.stat().st_nlink == 1
    for directory, _, _ in os.walk(tmp_path / "input"):
        assert stat.S_IMODE(os.stat(directory).st_mode) == 0o550
    remove_tree(tmp_path / "input")
    assert not (tmp_path / "input").exists()


def test_an_empty_payload_is_an_empty_input(tmp_path: Path) -> None:
    (tmp_path / "payload").mkdir()
    Inputs().make(tmp_path / "payload", tmp_path / "input", account_of(""))
    assert content(tmp_path / "input") == {}


@needs_root
def test_another_user_gets_links_and_a_third_one_copies(payload: Path, tmp_path: Path) -> None:
    """A file has one group: the first user keeps its access while the second reads its own copy."""
    inputs = Inputs()
    inputs.make(payload, tmp_path / "first", other(2001))
    inputs.make(payload, tmp_path / "again", other(2001))
    inputs.make(payload, tmp_path / "second", other(2002))
    assert content(tmp_path / "first") == content(tmp_path / "second") == content(payload)
    for name in content(payload):
        first, again, second = (tmp_path / made / name for made in ("first", "again", "second"))
        assert first.samefile(payload / name)
        assert again.samefile(payload / name)
        assert not second.samefile(payload / name)
        assert (first.stat().st_gid, second.stat().st_gid) == (2001, 2002)
        assert (first.stat().st_uid, second.stat().st_uid) == (0, 0)


def test_a_directory_that_cannot_be_searched_is_named(tmp_path: Path) -> None:
    """The sentence says which directory, and what to do."""
    closed = tmp_path / "closed"
    (closed / "inner").mkdir(parents=True)
    for above in (*tmp_path.parents, tmp_path):
        if not above.stat().st_mode & 0o001:
            above.chmod(above.stat().st_mode | 0o001)
    closed.chmod(0o750)
    with pytest.raises(RefusedError, match=f"cannot reach .*inner.*search {closed} "):
        check_reach(other(2001), closed / "inner")
    closed.chmod(0o751)
    check_reach(other(2001), closed / "inner")
