"""Logging: levels by category, one line an event, no control characters, no exception's message."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from protocol.config import Settings
from protocol.logs import EventLogger, Repeats, set_up

ORIGINAL = "Nvidia.Clara.DicomAdapter.Server"


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def configured(settings: Settings, **levels: str) -> Settings:
    return with_logging(settings, levels={name.replace("__", "."): level for name, level in levels.items()})


def with_logging(settings: Settings, **changes: object) -> Settings:
    return msgspec.structs.replace(settings, logging=msgspec.structs.replace(settings.logging, **changes))


@pytest.mark.parametrize(
    ("levels", "category", "enabled", "disabled"),
    [
        ({}, "adapter.receiver", logging.INFO, logging.DEBUG),
        ({"Default": "Error"}, "adapter.receiver", logging.ERROR, logging.WARNING),
        ({"Default": "Error", "Nvidia": "Debug"}, "adapter.receiver", logging.DEBUG, 5),
        ({"Nvidia": "Error", f"{ORIGINAL}.Services.Scp": "Trace"}, "adapter.receiver", 5, 4),
        ({"Nvidia": "Error", f"{ORIGINAL}.Services.Scp": "Trace"}, "adapter.processor", logging.ERROR, logging.WARNING),
        ({f"{ORIGINAL}.Processors.AeTitleJobProcessor": "Debug"}, "adapter.processor", logging.DEBUG, 5),
        ({f"{ORIGINAL}.Services.Scp.SomeClass": "Debug"}, "adapter.receiver", logging.DEBUG, 5),
        ({"Nvidia": "Debug", "adapter.receiver": "Warning"}, "adapter.receiver", logging.WARNING, logging.INFO),
        ({"Default": "None"}, "adapter.receiver", 100, logging.CRITICAL),
    ],
)
def test_the_longest_category_wins(
    settings: Settings, levels: dict[str, str], category: str, enabled: int, disabled: int
) -> None:
    set_up(with_logging(settings, levels=levels), "test")
    logger = EventLogger(category)
    assert logger.enabled(enabled)
    assert not logger.enabled(disabled)


def test_an_event_is_one_line_with_its_fields(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    set_up(with_logging(settings, levels={}), "receiver-1")
    EventLogger("adapter.receiver").info("association_accepted", peer="10.0.0.1", title="A B", text="x\r\n\x1b[31m")
    (line,) = capsys.readouterr().out.splitlines()
    assert 'adapter.receiver [receiver-1] association_accepted peer=10.0.0.1 title="A B"' in line
    assert "\x1b" not in line


def test_json_lines_hold_the_same(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    set_up(with_logging(settings, levels={}, format="json"), "receiver-1")
    EventLogger("adapter.receiver").warning("rejected", peer="10.0.0.1", path=Path("/x"))
    line = json.loads(capsys.readouterr().out)
    assert line["event"] == "rejected"
    assert line["level"] == "warn"
    assert line["peer"] == "10.0.0.1"


def test_an_unexpected_exception_is_marked_and_its_message_is_told_at_debug_alone(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    for level in ("Information", "Debug"):
        set_up(configured(settings, Default=level), "processor")
        try:
            raise ValueError("Doe^Jane")
        except ValueError:
            EventLogger("adapter.processor").unexpected("failed")
        marked, *more = capsys.readouterr().out.splitlines()
        assert "error: adapter.processor [processor] failed marker=UNEXPECTED" in marked
        assert "test_logs.py" in marked
        assert "ValueError" in marked
        assert "Doe" not in marked
        assert [line.partition("debug: ")[2] for line in more] == (
            ["adapter.processor [processor] failed_message text=Doe^Jane"] if level == "Debug" else []
        )


def test_under_journald_a_line_starts_with_its_priority(
    settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    set_up(with_logging(settings, levels={}), "processor")
    EventLogger("adapter.processor").error("failed")
    assert capsys.readouterr().out.startswith("<3>error: adapter.processor [processor] failed")


def test_repeats_of_a_peer_are_summed_up() -> None:
    written: list[tuple[str, dict[str, object]]] = []
    repeats = Repeats(lambda event, **fields: written.append((event, fields)), seconds=3600)
    for _ in range(5):
        repeats.add("rejected", "10.0.0.1", reason="unknown")
    repeats.add("rejected", "10.0.0.2", reason="unknown")
    repeats.flush()
    assert len(written) == 2
    repeats.flush(everything=True)
    assert written[2:] == [("rejected", {"peer": "10.0.0.1", "repeated": 4, "reason": "unknown"})]
