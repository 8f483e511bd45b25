"""How results look: tables for people, JSON for programs."""

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import typer

Json = Annotated[bool, typer.Option("--json", help="JSON for programs instead of a table.")]


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
    """A table on standard output: as wide as the terminal, or as it needs to be in a pipe.

    Args:
        headings: of the columns.
        rows: cells; None is shown as a dash.
        empty: what to say when there is no row.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells = [[_cell(cell) for cell in row] for row in rows]
    if not cells:
        print(empty)
        return
    console = Console(width=None if sys.stdout.isatty() else 500)
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for line in cells:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in line))
    console.print(table)


_STYLES = {
    "running": "green",
    "Completed": "green",
    "Succeeded": "green",
    "open": "green",
    "Faulted": "bold red",
    "Failed": "bold red",
    "failed": "bold red",
    "paused": "bold red",
    "waiting": "yellow",
    "draining": "yellow",
    "starting": "yellow",
}


def _cell(value: object) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, float):
        return f"{value:g}"
    return "".join(character if character.isprintable() else "?" for character in str(value))


def printable(text: str) -> str:
    """Lines of text that somebody else wrote, without what would disturb a terminal."""
    return "\n".join(_cell(line) if line else "" for line in text.splitlines())


def local_time(moment: str | None) -> str:
    """An ISO 8601 moment, as the API gives it, on this machine's clock and with its offset."""
    if not moment:
        return ""
    return datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S %z")


def utc_time(moment: str) -> str:
    """What a person wrote as a time, by default on this machine's clock, as ISO 8601 in UTC.

    Raises:
        typer.BadParameter: it is no time.
    """
    try:
        return datetime.fromisoformat(moment).astimezone(UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"{moment!r} is no time: write 2024-05-31 or 2024-05-31T13:30") from None


def duration(seconds: float) -> str:
    """Seconds in the two largest units that matter."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def size(count: int) -> str:
    """Bytes in units of powers of ten, as disks are sold."""
    for unit, power in (("TB", 12), ("GB", 9), ("MB", 6), ("kB", 3)):
        if count >= 10**power:
            return f"{count / 10**power:.1f} {unit}"
    return f"{count} bytes"
