"""A job's payload: its group's instances and the names that they have there, always in the same order."""

from collections.abc import Iterator

from protocol.ledger import Instance, pages
from protocol.platforms.base import PayloadFile
from protocol.spool import INSTANCE_SUFFIX, Spool, payload_name
from protocol.states import InstanceState


def files(group_id: int | None, spool: Spool) -> Iterator[list[PayloadFile]]:
    """The files of a group's payload in pages.

    The order, and so each name, is the same at every call: a closed group does not change. Two instances whose names
    come out equal after cleaning get different ones, by a number before the suffix.

    Args:
        group_id: the group; None is a job without instances.
        spool: where they are.
    """
    if group_id is None:
        return
    query = (
        Instance.select(
            Instance.identifier, Instance.patient_id, Instance.study_uid, Instance.series_uid, Instance.sop_instance_uid
        )
        .where((Instance.group_id == group_id) & (Instance.state == InstanceState.GROUPED))
        .namedtuples()
    )
    taken: set[str] = set()
    for page in pages(query, Instance.identifier):
        yield [
            PayloadFile(
                name=_distinct(
                    payload_name(row.patient_id, row.study_uid, row.series_uid, row.sop_instance_uid), taken
                ),
                path=spool.instance_path(row.identifier),
            )
            for row in page
        ]


def _distinct(name: str, taken: set[str]) -> str:
    """A name that is not taken, and is from now on."""
    stem = name.removesuffix(INSTANCE_SUFFIX)
    number = 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}{INSTANCE_SUFFIX}"
    taken.add(name)
    return name
