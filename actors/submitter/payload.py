"""A job's payload: its group's instances, or what was retrieved for it, and their names there, in one order."""

from collections.abc import Iterator

from protocol.ledger import Instance, Job, Retrieval, pages
from protocol.platforms.base import PayloadFile
from protocol.spool import INSTANCE_SUFFIX, Spool, clean_component, payload_name
from protocol.states import InstanceState


def files(job: Job, spool: Spool) -> Iterator[list[PayloadFile]]:
    """The files of a job's payload in pages.

    The order, and so each name, is the same at every call: neither a closed group nor a retrieval that is over changes.

    Args:
        job: of a group, or of an inference request.
        spool: where they are.
    """
    return _of_request(job.job_id, spool) if job.group_id is None else _of_group(job.group_id, spool)


def _of_request(job_id: str, spool: Spool) -> Iterator[list[PayloadFile]]:
    """What was retrieved has its name on record."""
    query = Retrieval.select(Retrieval.retrieval_id, Retrieval.name, Retrieval.path).where(Retrieval.job_id == job_id)
    home = spool.requests / job_id
    for page in pages(query.namedtuples(), Retrieval.retrieval_id):
        yield [PayloadFile(name=row.name, path=f"{home}/{row.path}") for row in page]


def _of_group(group_id: int, spool: Spool) -> Iterator[list[PayloadFile]]:
    """Two instances whose names come out equal after cleaning get different ones, by a number before the suffix."""
    query = (
        Instance.select(
            Instance.identifier, Instance.patient_id, Instance.study_uid, Instance.series_uid, Instance.sop_instance_uid
        )
        .where((Instance.group_id == group_id) & (Instance.state == InstanceState.GROUPED))
        .namedtuples()
    )
    taken: set[str] = set()
    directories = _Directories()
    for page in pages(query, Instance.identifier):
        yield [
            PayloadFile(
                name=_distinct(
                    directories[row.patient_id, row.study_uid, row.series_uid]
                    + clean_component(row.sop_instance_uid)
                    + INSTANCE_SUFFIX,
                    taken,
                ),
                path=spool.instance_path(row.identifier),
            )
            for row in page
        ]


class _Directories(dict[tuple[str, str, str], str]):
    """Of series, each cleaned once, though it has hundreds of instances: patient, study and series → `dcm/…/`."""

    def __missing__(self, series: tuple[str, str, str]) -> str:
        directory = self[series] = payload_name(*series, "").rpartition("/")[0] + "/"
        return directory


def _distinct(name: str, taken: set[str]) -> str:
    """A name that is not taken, and is from now on."""
    if name not in taken:
        taken.add(name)
        return name
    stem = name.removesuffix(INSTANCE_SUFFIX)
    number = 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}{INSTANCE_SUFFIX}"
    taken.add(name)
    return name
