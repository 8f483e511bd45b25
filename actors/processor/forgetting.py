"""What the processor forgets: groups whose files are gone, with their jobs; instances that a person gave up."""

import peewee as pw

from protocol.ledger import Group, InstanceHistory, Job, Ledger, Reclaim
from protocol.ledger.past import Forgetting, Past, jobs_that_matter
from protocol.logs import EventLogger
from protocol.states import GroupState


def forgetting(ledger: Ledger, log: EventLogger) -> Forgetting:
    """See `Forgetting`.

    Args:
        ledger: the ledger.
        log: of the actor.
    """
    # The newest group stays, so that no ID is given twice: what others know of the old one would be taken for the new.
    every = Group.alias()
    newest = every.select(pw.fn.MAX(every.group_id))
    reclaim = Reclaim.select(pw.SQL("1")).where(Reclaim.group_id == Group.group_id)
    groups = Past(
        ledger,
        Group.group_id,
        lambda before_ns: (
            (Group.closed_ns < before_ns)
            & (Group.group_id < newest)
            & ~pw.fn.EXISTS(reclaim.where(Reclaim.reclaimed_ns >= before_ns))
            & ~pw.fn.EXISTS(jobs_that_matter(Job.group_id == Group.group_id, before_ns))
        ),
        among=Group.state == GroupState.RECLAIMED,
        parts=(InstanceHistory.group_id, Job.group_id),
    )
    given_up = Past(
        ledger,
        InstanceHistory.identifier,
        lambda before_ns: InstanceHistory.reclaimed_ns < before_ns,
        among=InstanceHistory.group_id.is_null(),
    )
    return Forgetting(ledger, log, groups, given_up)
