"""Lists that may be long: a table has the newest, and standard error tells when there are more; JSON has all."""

import itertools
import sys
from typing import Annotated, Any

import typer

from cli.api import call_pages

Limit = Annotated[
    int | None,
    typer.Option(
        help="At most so many, the newest; 0 for all.", min=0, show_default="100; with --json, all", metavar="NUMBER"
    ),
]
_SHOWN = 100


def listed(
    url: str, *path: str, key: str, limit: int | None, json: bool, query: dict[str, str] | None = None
) -> list[dict[str, Any]]:
    """The newest entries of a list of the API; when there are more in a table's, standard error tells so.

    Args:
        url: of the API.
        path: components below `/api`.
        key: the field that identifies an entry.
        limit: how many; 0 for all, None for what is usual.
        json: whether a program reads it.
        query: what chooses among the entries.

    Raises:
        AdapterError: as `cli.api.call`.
    """
    usual = 0 if json else _SHOWN
    most = (usual if limit is None else limit) or None
    entries = call_pages(url, *path, key=key, query=query, at_once=most)
    found = list(itertools.islice(entries, most))
    if limit is None and most is not None and next(entries, None) is not None:
        print(f"only the newest {most} are shown: --limit 0 shows all", file=sys.stderr)
    return found
