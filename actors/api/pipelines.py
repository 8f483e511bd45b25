"""Pipelines: the commands that the embedded platform runs."""

import re
import time
import uuid
from collections.abc import Callable
from typing import Any

import msgspec

from actors.api import validation
from actors.api.entities import Pipeline
from actors.api.registry import Registry, kept_key
from actors.api.validation import Body
from protocol import exports, ledger
from protocol.config import kinds
from protocol.config.kinds import Kind, Refused, as_text
from protocol.errors import RefusedError
from protocol.states import RunState
from protocol.vault import Vault

_LONGEST_EXPORT, _LONGEST_NAME = 4096, 64
_ALLOWED = "a destination's name, or dicomweb: and the absolute URL of a DICOMweb service"
_LONGEST_ARGUMENTS = 100_000  # of the kernel's 128 KiB for one argument, and 2 MiB for all with the environment


class Pipelines(Registry[Pipeline]):
    """The table of pipelines, by ID, else by name.

    Args:
        vault: seals the credentials of DICOMweb services; opened when it is needed first.
        further: as of `Registry`.
    """

    noun = "pipeline"

    def __init__(self, *further: Any, vault: Callable[[], Vault], **named: Any) -> None:
        super().__init__(*further, **named)
        self._vault = vault

    def query(self) -> tuple[Any, Any]:
        """All rows."""
        return ledger.Pipeline.select(), ledger.Pipeline.pipeline_id

    def entity(self, row: ledger.Pipeline) -> Pipeline:
        """A row as its entity."""
        return Pipeline.of(row)

    def key(self, entity: Pipeline) -> str:
        """Its ID."""
        return entity.pipeline_id

    def find(self, key: str, rows: list[Any]) -> Any | None:
        """By ID in any case, else by name."""
        by_id = next((row for row in rows if row.pipeline_id == key.lower()), None)
        return by_id or next((row for row in rows if row.name == key), None)

    def read(self, body: Body, old: Pipeline | None) -> Pipeline:
        """A name, a command, and the ID that AE titles or jobs name already; by default a new one is made."""
        given = body.read("pipelineId", _identifier(), "").lower()
        name = body.required("name", validation.text(64, "a name"), "")
        command = body.texts("command", validation.argument())
        if not command or not command[0].strip():
            body.errors.append("command is missing: a list of texts, the program first")
        elif sum(len(argument.encode()) for argument in command) > _LONGEST_ARGUMENTS:
            body.errors.append(f"command is too long: at most {_LONGEST_ARGUMENTS} bytes")
        entity = Pipeline(
            pipeline_id=kept_key(body, "pipelineId", given, old.pipeline_id if old else None, str.__eq__)
            or str(uuid.uuid4()),
            name=name,
            command=command,
            exports=self._exports(body, old),
            user=body.read("user", _user(), ""),
            timeout_seconds=body.read("timeoutSeconds", kinds.whole(1), 3600),
        )
        body.refuse_unknown()
        return entity

    def create(self, data: bytes) -> Pipeline:
        """As of every resource; the answer tells no credentials."""
        return _shown(super().create(data))

    def replace(self, key: str, data: bytes) -> Pipeline:
        """As of every resource; credentials that come back as they were shown stay as they are."""
        return _shown(super().replace(key, data))

    def _exports(self, body: Body, old: Pipeline | None) -> tuple[str, ...]:
        """Destinations as the ledger keeps them, each once."""
        kept = {} if old is None else {exports.shown(each): each for each in self._found(old.pipeline_id).exports}
        found: dict[str, str] = {}
        for place, written in enumerate(body.texts("exports", validation.text(_LONGEST_EXPORT, "an export"))):
            if not exports.is_dicomweb(written):
                if len(written) > _LONGEST_NAME or "://" in written or "," in written:
                    body.errors.append(f"exports[{place}] is no destination's name: {_ALLOWED}")
                found.setdefault(written.casefold(), written)
            elif f"://{exports.MASK}@" in written:
                same = kept.get(exports.DICOMWEB + written[len(exports.DICOMWEB) :].rstrip("/"))
                if same is None:
                    body.errors.append(f"exports[{place}] holds credentials as they are shown: write them anew")
                else:
                    found[exports.url_of(same)] = same
            elif written:
                try:
                    service = exports.read_dicomweb(written)
                except ValueError as error:
                    # It may hold a password, so it is not repeated.
                    body.errors.append(f"exports[{place}] {error}: {_ALLOWED}")
                else:
                    sealed = service.auth_type != "None"
                    found[service.url] = (
                        exports.seal(service, self._vault()) if sealed else f"{exports.DICOMWEB}{service.url}"
                    )
        return tuple(found.values())

    def taken(self, wanted: Pipeline, others: list[Any]) -> list[str]:
        """IDs and names are unique, and none is both, since a pipeline is found by either."""
        problems = []
        if any(wanted.pipeline_id in (row.pipeline_id, row.name.lower()) for row in others):
            problems.append(
                f"pipelineId {wanted.pipeline_id!r} is taken already: leave it out, or replace that one by PUT"
            )
        if any(wanted.name == row.name or wanted.name.lower() == row.pipeline_id for row in others):
            problems.append(f"name {wanted.name!r} is taken already: choose another, or replace that one by PUT")
        return problems

    def insert(self, wanted: Pipeline) -> None:
        """Make a row."""
        ledger.Pipeline.create(**_columns(wanted), pipeline_id=wanted.pipeline_id, created_ns=time.time_ns())

    def update(self, row: ledger.Pipeline, wanted: Pipeline) -> None:
        """Change all but the ID."""
        columns = _columns(wanted)
        ledger.Pipeline.update(**columns).where(ledger.Pipeline.pipeline_id == row.pipeline_id).execute()

    def remove(self, row: ledger.Pipeline) -> None:
        """Delete it, unless something waits for it.

        Raises:
            RefusedError: runs of it have not begun; they could not be done by another.
        """
        waiting = ledger.Run.state.in_((RunState.CREATED, RunState.PENDING))
        runs = ledger.Run.select().where(waiting & (ledger.Run.pipeline_id == row.pipeline_id)).count()
        if runs:
            raise RefusedError(f"{runs} runs of the pipeline {row.name} wait to begin: delete it when they have ended")
        super().remove(row)


def _columns(wanted: Pipeline) -> dict[str, object]:
    return {
        "name": wanted.name,
        "command": list(wanted.command),
        "exports": list(wanted.exports),
        "user": wanted.user,
        "timeout_seconds": wanted.timeout_seconds,
    }


def _shown(pipeline: Pipeline) -> Pipeline:
    return msgspec.structs.replace(pipeline, exports=tuple(map(exports.shown, pipeline.exports)))


def _identifier() -> Kind:
    """The kind of IDs, as another platform may have made them."""
    allowed = "1 to 64 letters, digits, dots, hyphens and underscores, or empty for a new one"
    return _optional(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", "is no ID", allowed)


def _user() -> Kind:
    """The kind of account names; whether the account exists is the platform's to say."""
    allowed = "the name of an account of this machine, or empty"
    return _optional(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}", "is no account name", allowed)


def _optional(pattern: str, wrong: str, allowed: str) -> Kind:
    """The kind of texts of a form, or empty ones."""

    def parse(value: object) -> str:
        if value == "":
            return ""
        found = as_text(value)
        if not re.fullmatch(pattern, found, re.ASCII):
            raise Refused(wrong)
        return found

    return Kind(allowed, parse)
