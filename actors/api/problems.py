"""Errors as problem details (RFC 9457): every error of this system, of Litestar and of the ledger becomes one."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
import peewee as pw
from litestar import Request, Response
from litestar.exceptions import HTTPException

from protocol import errors
from protocol.logs import EventLogger

MEDIA_TYPE = "application/problem+json"
VALIDATION_TITLE = "Validation error."
_LATER = {"Retry-After": "5"}

_log = EventLogger("adapter.api")


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of an error.

    Args:
        title: what kind of error, the same for all of a kind.
        status: the HTTP status code.
        detail: what is wrong here, and the remedy.
        errors: every single error of a validation.
    """

    title: str
    status: int
    detail: str = ""
    errors: tuple[str, ...] = ()


class ProblemError(Exception):
    """A request ends with a problem.

    Args:
        status: the HTTP status code.
        detail: what is wrong here, and the remedy.
        title: default is the status code's phrase.
        errors: every single error of a validation.
        headers: of the response.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        title: str = "",
        errors: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.headers = dict(headers or {})
        self.problem = Problem(
            title=title or HTTPStatus(status).phrase, status=status, detail=detail, errors=tuple(errors)
        )


class InvalidError(ProblemError):
    """What was sent is not valid.

    Args:
        found: every error, a sentence each.
        status: the HTTP status code.
    """

    def __init__(self, found: Sequence[str], status: int = 400) -> None:
        super().__init__(status, "; ".join(found), title=VALIDATION_TITLE, errors=found)


def problem_of(error: Exception) -> ProblemError:
    """The problem that tells of an error; what nobody foresaw is logged here, and told without its words."""
    told: ProblemError | None = None
    match error:
        case ProblemError():
            told = error
        case HTTPException() if error.status_code < 500:
            told = _of_litestar(error)
        case errors.NotFoundError():
            told = ProblemError(404, str(error))
        case errors.RefusedError():
            told = ProblemError(409, str(error))
        case errors.UnavailableError() | errors.LedgerError() | errors.StorageError():
            told = ProblemError(503, str(error), headers=_LATER)
        case pw.OperationalError() | pw.InterfaceError():
            _log.error("ledger_failed", reason=str(error))
            told = ProblemError(503, "the ledger does not answer now: see the log of the API", headers=_LATER)
    if told is None:
        _log.unexpected("request_failed")
        told = ProblemError(500, "this is a fault of the program: please report it with the log of the API")
    return told


def _of_litestar(error: HTTPException) -> ProblemError:
    """Litestar's own exceptions; those of parameters name each of them."""
    found = [
        f"{told['key']}: {told['message']}"
        for told in (error.extra if isinstance(error.extra, list) else ())
        if isinstance(told, dict) and "key" in told and "message" in told
    ]
    if found:
        return InvalidError(found)
    detail = error.detail
    if error.status_code == 404:
        detail = "there is nothing at this path: the page at / lists what there is"
    elif error.status_code == 405 and error.headers:
        detail = f"this path takes {error.headers['allow']}"
    return ProblemError(error.status_code, detail, headers=error.headers)


def encode(error: ProblemError) -> tuple[bytes, dict[str, str]]:
    """The response's body and headers."""
    return msgspec.json.encode(error.problem), {"content-type": MEDIA_TYPE, **error.headers}


def answer_with_problem(_: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Litestar's handler of all exceptions."""
    told = problem_of(error)
    body, headers = encode(told)
    headers.pop("content-type")
    return Response(body, status_code=told.problem.status, media_type=MEDIA_TYPE, headers=headers)
