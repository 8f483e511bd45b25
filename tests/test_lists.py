"""Lists of a gateway that has worked for long: the newest, and a word that there are more."""

import json
from collections.abc import Iterator

import pytest

from protocol.ledger import Ledger
from tests.aged import FAILED_EACH, age
from tests.gateway import Gateway

JOBS = 130
SHOWN = 100
TOLD = "only the newest 100 are shown: --limit 0 shows all\n"


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    gateway = Gateway(tmp_path_factory.mktemp("old"))
    gateway.write_configuration()
    ledger = Ledger(f"sqlite:///{gateway.ledger}")
    age(ledger, range(JOBS))
    ledger.close()
    with gateway:
        yield gateway


@pytest.mark.parametrize("kind", ["jobs", "exports"])
def test_a_table_has_the_newest(old: Gateway, kind: str) -> None:
    usual = old.cli(kind, "list")
    assert (len(usual.stdout.splitlines()), usual.stderr) == (1 + SHOWN, TOLD)
    everything = old.cli(kind, "list", "--limit", "0")
    assert (len(everything.stdout.splitlines()), everything.stderr) == (1 + JOBS, "")
    assert everything.stdout.splitlines()[1].split() == usual.stdout.splitlines()[1].split()
    few = old.cli(kind, "list", "--limit", "3")
    assert (len(few.stdout.splitlines()), few.stderr) == (1 + 3, "")
    chosen = old.cli(kind, "list", "--state", "Faulted" if kind == "jobs" else "Failed")
    assert (len(chosen.stdout.splitlines()), chosen.stderr) == (1 if kind == "jobs" else 1 + JOBS // FAILED_EACH, "")


@pytest.mark.parametrize("kind", ["jobs", "exports"])
def test_a_program_gets_all(old: Gateway, kind: str) -> None:
    listed = json.loads(old.cli(kind, "list", "--json").stdout)
    assert len(listed) == JOBS
    newest = json.loads(old.cli(kind, "list", "--json", "--limit", "7").stdout)
    assert newest == listed[:7]
    assert old.cli(kind, "list", "--limit", "-1", check=False).returncode == 64
