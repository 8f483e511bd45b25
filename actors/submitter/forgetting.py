"""What the submitter forgets: submissions whose job was forgotten."""

import peewee as pw

from protocol.ledger import Job, Ledger, Submission
from protocol.ledger.past import Forgetting, Past
from protocol.logs import EventLogger


def forgetting(ledger: Ledger, log: EventLogger) -> Forgetting:
    """See `Forgetting`.

    Args:
        ledger: the ledger.
        log: of the actor.
    """
    job = Job.select(pw.SQL("1")).where(Job.job_id == Submission.job_id)
    submissions = Past(
        ledger, Submission.job_id, lambda before_ns: (Submission.updated_ns < before_ns) & ~pw.fn.EXISTS(job)
    )
    return Forgetting(ledger, log, submissions)
