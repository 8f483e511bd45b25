"""Which jobs a person's decision means: a condition for queries, shared by those who carry the decision out."""

from typing import Any

import peewee as pw

from protocol import messages
from protocol.ledger.tables import Job


def is_chosen(which: messages.JobsChosen) -> Any:
    """The condition on a `Job`.

    Args:
        which: those that are meant.
    """
    conditions = pw.Value(1) == pw.Value(1)
    if which.job_ids:
        conditions &= Job.job_id.in_(which.job_ids)
    if which.ae_title:
        conditions &= Job.ae_title == which.ae_title
    if which.pipeline_id:
        conditions &= pw.fn.LOWER(Job.pipeline_id) == which.pipeline_id.lower()
    if which.since_ns:
        conditions &= Job.created_ns >= which.since_ns
    if which.until_ns:
        conditions &= Job.created_ns <= which.until_ns
    return conditions
