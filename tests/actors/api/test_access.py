"""The access list and somebody who deletes it at the worst moment."""

from pathlib import Path

import pytest

from actors.api.access import AccessWriter
from actors.api.book import Book
from actors.api.processors import Processors
from protocol.access import AccessFile, AccessList
from protocol.spool import Spool


def test_deleted_right_after_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the writer has seen what it wrote: it is due again, and there after that."""
    book = Book(f"sqlite:///{tmp_path / 'ledger.db'}")
    book.open(lambda: None, lambda error: pytest.fail(str(error)))
    spool = Spool(tmp_path / "spool")
    spool.create()
    writer = AccessWriter(spool, book, Processors())
    replace = AccessFile.replace

    def replaced_and_deleted(file: AccessFile, access: AccessList) -> None:
        replace(file, access)
        spool.access.unlink()

    with monkeypatch.context() as patch:
        patch.setattr(AccessFile, "replace", replaced_and_deleted)
        writer.write()
    assert writer.is_due
    writer.write()
    assert spool.access.exists()
    assert not writer.is_due
    book.close()
