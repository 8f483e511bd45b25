"""What the processor forgets: groups whose files are gone, with their jobs; instances that a person gave up."""

import peewee as pw

from protocol.ledger import Group, InstanceHistory, Job, Ledger
from protocol.ledger.past import Forgetting, Past, unfinished_jobs
from protocol.logs import EventLogger
from protocol.states import GroupState


def forgetting(ledger: Ledger, log: EventLogger) -> Forgetting:
    """See `Forgetting`.

    Args:
        ledger: the ledger.
        log: of the actor.
    """
    unfinished = unfinished_jobs(Job.group_id == Group.group_id)
    groups = Past(
        ledger,
        Group.group_id,
        lambda before_ns: (Group.closed_ns < before_ns) & ~pw.fn.EXISTS(unfinished),
        among=Group.state == GroupState.RECLAIMED,
        parts=(InstanceHistory.group_id, Job.group_id),
    )
    given_up = Past(
        ledger,
        InstanceHistory.identifier,
        lambda before_ns: InstanceHistory.reclaimed_ns < before_ns,
        among=InstanceHistory.group_id.is_null(),
    )
    return Forgetting(log, groups, given_up)
