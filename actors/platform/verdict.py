"""What becomes of a run after a try: read from what the shim left, with the try cleaned up before it is told."""

import signal
import time
from typing import Any

import msgspec

from actors.platform.attempt import Attempt, Result
from actors.platform.repeating import OUT_OF
from protocol import killpoints
from protocol.states import RunState

MOST_LOST_TRIES = 3


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """How a try ended.

    Args:
        state: the run's next state; Pending means another try.
        error: a sentence for people, without patient data; "" when it succeeded.
        exit_code: of the command.
        last_output: the end of its output; may hold patient data.
        started_ns, ended_ns: wall time; None when nothing was started.
        left_behind: processes that had to be ended.
        problems: what could not be cleaned up.
        kept_bytes: what stays of the try.
        files: what it has made, as names below its output directory.
    """

    state: RunState
    error: str = ""
    exit_code: int | None = None
    last_output: str = ""
    started_ns: int | None = None
    ended_ns: int | None = None
    left_behind: int = 0
    problems: tuple[str, ...] = ()
    kept_bytes: int = 0
    files: tuple[str, ...] = ()

    def columns(self) -> dict[str, Any]:
        """For the run's row."""
        if self.state is RunState.PENDING:
            return {"error": self.error, "started_ns": None}
        told = {"exit_code": self.exit_code, "error": self.error, "last_output": self.last_output}
        kept = {"kept_bytes": self.kept_bytes, "keeps_input": self.state is RunState.FAILED}
        times = {"ended_ns": self.ended_ns, **({} if self.started_ns is None else {"started_ns": self.started_ns})}
        return {**told, **kept, **times}


def conclude(attempt: Attempt, refused: str, lost: int) -> Verdict:
    """Decide what becomes of a run, and clean up after its try. It may be repeated.

    Args:
        attempt: whose shim has ended, or was never started.
        refused: why it was not started; "" when it was.
        lost: how many tries ended without a result.

    Raises:
        OSError: there is too little of something now (`OUT_OF`), so that it is not over yet.
    """
    result = None if refused else attempt.result()
    if refused:
        verdict = Verdict(state=RunState.FAILED, error=refused, ended_ns=time.time_ns())
    elif result is None:
        verdict = _lost(attempt, lost)
    else:
        verdict = _of_result(result, attempt.shown_output())
    problems = []
    files: tuple[str, ...] = ()
    if verdict.state is RunState.SUCCEEDED:
        try:
            attempt.keep_output()
            files = attempt.output_files()
        except OSError as error:
            _raise_if_it_may_pass(error)
            reason = f"its output could not be brought to stable storage: {error.strerror}"
            verdict = msgspec.structs.replace(verdict, state=RunState.FAILED, error=reason)
        killpoints.reach("platform.output-synced")
    try:
        if verdict.state is RunState.PENDING:
            attempt.give_up()
        else:
            attempt.clean(keep_payload=verdict.state is RunState.FAILED)
            killpoints.reach("platform.cleaned")
    except OSError as error:
        _raise_if_it_may_pass(error)
        problems.append(f"{error.strerror} in {attempt.home}")
    kept = 0 if verdict.state is RunState.PENDING else attempt.kept_bytes()
    return msgspec.structs.replace(verdict, problems=tuple(problems), kept_bytes=kept, files=files)


def _raise_if_it_may_pass(error: OSError) -> None:
    if error.errno in OUT_OF:
        raise error


def _lost(attempt: Attempt, lost: int) -> Verdict:
    """The shim was killed, or the machine was: nobody knows how far the command came."""
    ended = attempt.end_what_is_left()
    if lost < MOST_LOST_TRIES:
        return Verdict(state=RunState.PENDING, error="interrupted; it is run again", left_behind=ended)
    return Verdict(
        state=RunState.FAILED,
        error=f"interrupted {lost} times without a result: see whether the pipeline uses up the machine's memory",
        last_output=attempt.shown_output(),
        left_behind=ended,
        ended_ns=time.time_ns(),
    )


def _of_result(result: Result, output: str) -> Verdict:
    state, error = RunState.FAILED, result.reason
    if result.outcome == "canceled":
        state, error = RunState.CANCELED, "canceled"
    elif result.outcome == "stopped":
        return Verdict(state=RunState.PENDING, error="stopped with the gateway; it is run again")
    elif result.outcome == "exited" and result.exit_code == 0:
        state = RunState.SUCCEEDED
    elif result.outcome == "exited" and result.exit_code is not None:
        error = f"exit code {result.exit_code}"
    elif result.outcome == "exited" and result.signal is not None:
        error = f"ended by signal {result.signal} ({signal.Signals(result.signal).name})"
    return Verdict(
        state=state,
        error=error,
        exit_code=result.exit_code,
        last_output=output,
        started_ns=result.started_ns,
        ended_ns=result.ended_ns,
        left_behind=result.left_behind,
    )
