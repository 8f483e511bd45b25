"""What a person decides about several things at once: what is chosen, one by one, and what came of it."""

import sys

from cli.api import call
from cli.output import printable
from protocol.errors import AdapterError, NotFoundError, RefusedError, UsageError


def choice(**given: str | None) -> dict[str, str]:
    """The filters that were given, by their names in the API.

    Args:
        given: values; None for a filter that was not given.

    Raises:
        UsageError: one was given and is empty, such as by a variable that is not set: leaving it out would mean all.
    """
    for name, value in given.items():
        if value is not None and not value.strip():
            raise UsageError(f"the choice by {name} is empty: give it a value, or leave it out")
    return {name: value for name, value in given.items() if value is not None}


def decide_each(url: str, verb: str, collection: str, identifiers: list[str], noun: str) -> None:
    """Have a decision done for each of some things, whatever becomes of the others, and say how many it was done for.

    Args:
        url: of the API.
        verb: the decision.
        collection: the component of the API's paths.
        identifiers: of the things; one that stands there twice is one.
        noun: what a thing is called.

    Raises:
        RefusedError: it could not be done for some of them; each was told with its reason.
        UnavailableError: nobody answers.
    """
    different = list(dict.fromkeys(identifiers))
    affected, failures = 0, list[AdapterError]()
    for identifier in different:
        try:
            affected += int(call(url, "POST", collection, identifier, verb)["affected"])
        except (NotFoundError, RefusedError, UsageError) as error:
            failures.append(error)
            if len(different) > 1:
                print(f"dicom-adapter: {printable(identifier)}: {error}", file=sys.stderr)
    if len(different) > 1 or not failures:
        _tell(verb, affected, noun)
    if failures:
        if len(different) == 1:
            raise failures[0]
        raise RefusedError(f"{len(failures)} of {len(different)} were not done: see above")


def decide_all(url: str, verb: str, collection: str, chosen: dict[str, str], noun: str) -> None:
    """Have a decision done for all that match, and say how many these were.

    Args:
        url: of the API.
        verb: the decision.
        collection: the component of the API's paths.
        chosen: the filters; none is all.
        noun: what a thing is called.

    Raises:
        AdapterError: as `call`.
    """
    affected = call(url, "POST", collection, verb, body=chosen)["affected"]
    _tell(verb, affected, noun)
    if not affected and chosen:
        why = "nothing matches: filters are written as the list shows them"
        if chosen.get("platformState") and verb == "discard":
            why = "nothing that matches can be discarded: it was before, or an export waits for it or failed"
        print(f"dicom-adapter: {why}", file=sys.stderr)


def _tell(verb: str, affected: int, noun: str) -> None:
    print(f"{verb}: {affected} {noun if affected == 1 else noun + 's'}")
