"""What the retriever forgets: requests that are over, with what they retrieved and their jobs."""

import pathlib

import peewee as pw

from protocol.ledger import InferenceRequest, Job, Ledger, Retrieval
from protocol.ledger.past import Forgetting, Past, jobs_that_matter
from protocol.logs import EventLogger
from protocol.spool import Spool
from protocol.states import RequestState

_OVER = (RequestState.COMPLETED, RequestState.FAILED)


def forgetting(ledger: Ledger, log: EventLogger, spool: Spool) -> Forgetting:
    """See `Forgetting`.

    Args:
        ledger: the ledger.
        log: of the actor.
        spool: where what was retrieved lies until its job has it.
    """
    requests = Past(
        ledger,
        InferenceRequest.job_id,
        lambda before_ns: (
            InferenceRequest.state.in_(_OVER)
            & (InferenceRequest.updated_ns < before_ns)
            & ~pw.fn.EXISTS(jobs_that_matter(Job.job_id == InferenceRequest.job_id, before_ns))
        ),
        parts=(Retrieval.job_id, Job.job_id),
        may_go=lambda job_id: not (pathlib.Path(spool.requests) / job_id).exists(),
    )
    return Forgetting(ledger, log, requests)
