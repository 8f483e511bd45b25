"""Commands to owners that answer, refuse, or are silent."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.api import owners as module
from actors.api.owners import Owners
from protocol import channels, messages
from protocol.bus import Bus
from protocol.config import Settings, load
from protocol.errors import RefusedError, UnavailableError
from tests.actors.api import surroundings


@pytest.fixture
def runtime() -> Iterator[Path]:
    """A directory whose path is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="dicom-adapter-") as directory:
        yield Path(directory)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Effective settings without any file."""
    config = tmp_path / "appsettings.json"
    config.write_text("{}")
    return load(config, None, [], {}).settings


@pytest.fixture
def bus(runtime: Path, settings: Settings) -> Iterator[Bus]:
    """The API's bus."""
    opened = Bus(runtime, settings)
    yield opened
    opened.close()


def test_answers(runtime: Path, settings: Settings, bus: Bus) -> None:
    standing_in = surroundings.Owners(Bus(runtime, settings))
    try:
        asking = Owners(bus)
        standing_in.answer = lambda _: messages.Done(affected=4)
        assert asking.ask(channels.SUBMITTER_COMMANDS, messages.RetryJobs(ae_title="A")) == 4
        assert standing_in.take() == [messages.RetryJobs(ae_title="A")]
        standing_in.answer = lambda _: messages.Refused(reason="no")
        with pytest.raises(RefusedError, match="no"):
            asking.ask(channels.PROCESSOR_COMMANDS, messages.DiscardInstances(identifiers=("a/b",)))
        standing_in.answer = lambda _: messages.RunCreated(run_id="", payload_id="", payload_directory="")
        with pytest.raises(RefusedError, match="answered RunCreated"):
            asking.ask(channels.PLATFORM_COMMANDS, messages.PipelinesChanged())
    finally:
        standing_in.close()


def test_silence(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """To ask is an error with its remedy; to tell is not."""
    monkeypatch.setattr(module, "_ASK_SECONDS", 0.1)
    monkeypatch.setattr(module, "_TELL_SECONDS", 0.1)
    with pytest.raises(UnavailableError, match="the submitter did not answer"):
        Owners(bus).ask(channels.SUBMITTER_COMMANDS, messages.RetryJobs())
    Owners(bus).tell(channels.PROCESSOR_COMMANDS, messages.AeTitlesChanged())
