"""`quarantine`: instances that were kept and could not be described, until a person decides."""

from typing import Annotated

import typer

from cli.api import DEFAULT_URL, Url, call, call_pages
from cli.output import Json, local_time, print_json, print_table, size

app = typer.Typer(no_args_is_help=True, help="List instances that could not be used; release or discard them.")

Identifiers = Annotated[list[str], typer.Argument(metavar="ID...", help="As `quarantine list` shows them.")]


@app.command("list")
def list_quarantined(url: Url = DEFAULT_URL, json: Json = False) -> None:
    """List quarantined instances with the reason.

    Example: `dicom-adapter quarantine list`
    """
    found = list(call_pages(url, "quarantine", key="id"))
    if json:
        print_json(found)
        return
    print_table(
        ("STORED", "ID", "TO", "FROM", "SIZE", "REASON"),
        (
            (
                local_time(each["stored"]),
                each["id"],
                each["aeTitle"],
                f"{each['callingAeTitle']} at {each['host']}",
                size(each["size"]),
                each["reason"],
            )
            for each in found
        ),
        "nothing in quarantine",
    )


@app.command()
def release(identifiers: Identifiers, url: Url = DEFAULT_URL) -> None:
    """Process instances as well as can be: what is missing in them is filled in.

    Example: `dicom-adapter quarantine release ID`
    """
    _decide(url, "release", identifiers)


@app.command()
def discard(identifiers: Identifiers, url: Url = DEFAULT_URL) -> None:
    """Give instances up: they are deleted.

    Example: `dicom-adapter quarantine discard ID`
    """
    _decide(url, "discard", identifiers)


def _decide(url: str, verb: str, identifiers: list[str]) -> None:
    for identifier in identifiers:
        call(url, "POST", "quarantine", identifier, verb)
    print(f"{verb}d {len(identifiers)}" if verb == "release" else f"{verb}ed {len(identifiers)}")
