"""What the embedded platform forgets: runs whose job was forgotten and that left no results, with their directories."""

import peewee as pw

from actors.platform.leftovers import remove_tree
from actors.platform.runs import Runs
from actors.platform.usage import Usage
from protocol.ledger import Job, Ledger, Result, Run
from protocol.ledger.past import Forgetting, Past
from protocol.ledger.results import with_files
from protocol.logs import EventLogger
from protocol.states import RunState

_RUNS_AT_ONCE = 20  # since what lies on the disk of each is deleted


def forgetting(ledger: Ledger, log: EventLogger, runs: Runs, usage: Usage) -> Forgetting:
    """See `Forgetting`.

    Args:
        ledger: the ledger.
        log: of the actor.
        runs: tells where a run has its files.
        usage: told of what was deleted.
    """

    def remove(payload_id: str) -> bool:
        """A kill before the row is deleted costs a repetition."""
        run, home = Run.get(Run.payload_id == payload_id), runs.home(payload_id)
        output = runs.attempt(run).output
        if not home.exists():
            return True  # what was removed by hand is counted until the next start
        try:
            if run.state == RunState.SUCCEEDED and output.exists() and any(output.iterdir()):
                return False  # files with names that no result can hold
            remove_tree(home)
        except OSError as error:
            log.warning("run_not_forgotten", reason=error.strerror, remedy="remove its directory by hand")
            return False
        Run.update(kept_bytes=0).where(Run.payload_id == payload_id).execute()
        usage.freed(run.kept_bytes)
        return True

    job = Job.select(pw.SQL("1")).where(Job.job_id == Run.job_id)
    result = Result.select(pw.SQL("1")).where((Result.run_id == Run.run_id) & with_files())
    past = Past(
        ledger,
        Run.payload_id,
        lambda before_ns: (Run.ended_ns < before_ns) & ~pw.fn.EXISTS(job) & ~pw.fn.EXISTS(result),
        at_once=_RUNS_AT_ONCE,
        parts=(Result.payload_id,),
        may_go=remove,
    )
    return Forgetting(ledger, log, past)
