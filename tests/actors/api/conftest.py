"""One API process for all tests of this package that do not need one of their own."""

from collections.abc import Iterator

import httpx
import pytest

from protocol.ledger import TABLES, Ledger, SchemaVersion
from tests.actors.api.surroundings import Owners, Surroundings


@pytest.fixture(scope="package")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Surroundings]:
    """The process that tests share; use `running` in tests."""
    with Surroundings(tmp_path_factory.mktemp("api")) as running:
        yield running


@pytest.fixture
def running(shared: Surroundings) -> Surroundings:
    """The shared process, its tables empty."""
    assert shared.owners is not None
    ledger = shared.open_ledger()
    with ledger.transaction():
        for table in TABLES:
            if table is not SchemaVersion:
                table.delete().execute()
    ledger.close()
    shared.owners.take()
    shared.owners.answer = Owners.done
    return shared


@pytest.fixture
def rest(running: Surroundings) -> httpx.Client:
    """Its client."""
    return running.rest


@pytest.fixture
def owners(running: Surroundings) -> Owners:
    """Those that it commands."""
    assert running.owners is not None
    return running.owners


@pytest.fixture
def ledger(running: Surroundings) -> Iterator[Ledger]:
    """Its ledger, for what other processes would write."""
    opened = running.open_ledger()
    yield opened
    opened.close()
