"""Secrets of remote servers, sealed with a key that is made once."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from protocol.errors import StorageError
from protocol.vault import Vault


def test_what_is_sealed_is_opened_by_every_process_with_the_key(tmp_path: Path) -> None:
    sealed = Vault(tmp_path).seal("user:pässword")
    assert "password" not in sealed
    assert Vault(tmp_path).open(sealed) == "user:pässword"
    assert stat.S_IMODE((tmp_path / "vault.key").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["vault.key"]


def test_several_that_make_the_key_at_once_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        vaults = list(pool.map(lambda _: Vault(tmp_path), range(32)))
    sealed = vaults[0].seal("secret")
    assert {vault.open(sealed) for vault in vaults} == {"secret"}


def test_another_key_opens_nothing_and_says_what_to_do(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    sealed = Vault(tmp_path / "one").seal("secret")
    with pytest.raises(StorageError, match="submit it again"):
        Vault(tmp_path / "other").open(sealed)
    with pytest.raises(StorageError):
        Vault(tmp_path / "one").open("nonsense")


def test_a_damaged_key_is_said_with_its_remedy(tmp_path: Path) -> None:
    (tmp_path / "vault.key").write_text("no key")
    with pytest.raises(StorageError, match="move it away"):
        Vault(tmp_path)
