"""`quarantine`: instances that were kept and could not be described, until a person decides."""

from typing import Annotated

import typer

from cli.api import DEFAULT_URL, Url
from cli.decisions import decide_each
from cli.lists import Limit, listed
from cli.output import Json, local_time, print_json, print_table, size

app = typer.Typer(no_args_is_help=True, help="List instances that could not be used; release or discard them.")

Identifiers = Annotated[list[str], typer.Argument(metavar="ID...", help="As `quarantine list` shows them.")]


@app.command("list")
def list_quarantined(*, limit: Limit = None, url: Url = DEFAULT_URL, json: Json = False) -> None:
    """List quarantined instances with the reason, newest first.

    Example: `dicom-adapter quarantine list`
    """
    found = listed(url, "quarantine", key="id", limit=limit, json=json)
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
    decide_each(url, "release", "quarantine", identifiers, "instance")


@app.command()
def discard(identifiers: Identifiers, url: Url = DEFAULT_URL) -> None:
    """Give instances up: they are deleted.

    Example: `dicom-adapter quarantine discard ID`
    """
    decide_each(url, "discard", "quarantine", identifiers, "instance")
