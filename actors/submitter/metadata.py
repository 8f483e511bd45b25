"""What the platform is told about a job: where it came from, how much it is, and, if configured, tags of its instances.

A value is at most 256 bytes of UTF-8, as Clara Platform wants it.
"""

from collections.abc import Iterator, Sequence

from protocol.ledger import Instance, Job, Retrieval, pages
from protocol.platforms.base import JOB_ID_KEY
from protocol.states import InstanceState

VALUE_BYTES = 256
_Arrived = tuple[tuple[int, str], dict[str, str]]


def of_job(job: Job) -> dict[str, str]:
    """What a job is created with; our UUID among it, so that the job can be found again by it."""
    if job.group_id is None:
        return of_request(job.job_id, job.source)
    return {"Source": cut(job.source), "Instances": str(job.instances), JOB_ID_KEY: job.job_id}


def of_request(job_id: str, source: str) -> dict[str, str]:
    """What the job of an inference request is created with; how much it is will be known when it was retrieved."""
    return {"Source": cut(source), JOB_ID_KEY: job_id}


def of_instances(job: Job, tags: Sequence[str]) -> dict[str, str]:
    """The distinct values of tags over all instances of a job, each tag's in the order in which they were received.

    Args:
        job: of a group, or of an inference request.
        tags: GGGGEEEE in upper case.

    Returns:
        One value as `GGGGEEEE`, several as `GGGGEEEE-0`, `GGGGEEEE-1` and so on; a tag without a value is left out.
    """
    first: dict[str, dict[str, tuple[int, str]]] = {tag: {} for tag in tags}
    # Pages come in the order of names, which is not quite that of arrival when several receivers worked.
    for arrival, attributes in _of_request(job.job_id) if job.group_id is None else _of_group(job.group_id):
        for tag, seen in first.items():
            value = attributes.get(tag, "")
            if value:
                seen[value] = min(seen.get(value, arrival), arrival)
    return named({tag: sorted(seen, key=seen.__getitem__) for tag, seen in first.items()})


def _of_group(group_id: int) -> Iterator[_Arrived]:
    query = Instance.select(Instance.identifier, Instance.stored_wall_ns, Instance.attributes).where(
        (Instance.group_id == group_id) & (Instance.state == InstanceState.GROUPED)
    )
    for page in pages(query, Instance.identifier):
        for row in page:
            yield (row.stored_wall_ns, row.identifier), row.attributes


def _of_request(job_id: str) -> Iterator[_Arrived]:
    query = Retrieval.select(Retrieval.retrieval_id, Retrieval.path, Retrieval.attributes, Retrieval.retrieved_ns)
    for page in pages(query.where(Retrieval.job_id == job_id), Retrieval.retrieval_id):
        for row in page:
            yield (row.retrieved_ns, row.path), row.attributes


def named(values: dict[str, list[str]]) -> dict[str, str]:
    """Distinct values per tag under the names that the platform knows them by."""
    metadata: dict[str, str] = {}
    for tag, distinct in values.items():
        if len(distinct) == 1:
            metadata[tag] = cut(distinct[0])
        else:
            metadata |= {f"{tag}-{number}": cut(value) for number, value in enumerate(distinct)}
    return metadata


def cut(value: str) -> str:
    """As much of a text as fits, ending with a whole character."""
    return value.encode("utf-8", "replace")[:VALUE_BYTES].decode("utf-8", "ignore")
