"""What the guardian forgets: that the files of groups were deleted which are forgotten themselves."""

import peewee as pw

from protocol.ledger import Group, Ledger, Reclaim
from protocol.ledger.past import Forgetting, Past
from protocol.logs import EventLogger


def forgetting(ledger: Ledger, log: EventLogger) -> Forgetting:
    """See `Forgetting`.

    Args:
        ledger: the ledger.
        log: of the actor.
    """
    group = Group.select(pw.SQL("1")).where(Group.group_id == Reclaim.group_id)
    reclaims = Past(
        ledger, Reclaim.group_id, lambda before_ns: (Reclaim.reclaimed_ns < before_ns) & ~pw.fn.EXISTS(group)
    )
    return Forgetting(ledger, log, reclaims)
