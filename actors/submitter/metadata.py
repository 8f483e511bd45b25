"""What the platform is told about a job: where it came from, how much it is, and, if configured, tags of its instances.

A value is at most 256 bytes of UTF-8, as Clara Platform wants it.
"""

from collections.abc import Sequence

from protocol.ledger import Instance, Job, pages
from protocol.platforms.base import JOB_ID_KEY
from protocol.states import InstanceState

VALUE_BYTES = 256


def of_job(job: Job) -> dict[str, str]:
    """What a job is created with; our UUID among it, so that the job can be found again by it."""
    return {"Source": cut(job.source), "Instances": str(job.instances), JOB_ID_KEY: job.job_id}


def of_instances(group_id: int, tags: Sequence[str]) -> dict[str, str]:
    """The distinct values of tags over all instances of a group, each tag's in the order in which they were received.

    Args:
        group_id: the group.
        tags: GGGGEEEE in upper case.

    Returns:
        One value as `GGGGEEEE`, several as `GGGGEEEE-0`, `GGGGEEEE-1` and so on; a tag without a value is left out.
    """
    first: dict[str, dict[str, tuple[int, str]]] = {tag: {} for tag in tags}
    query = Instance.select(Instance.identifier, Instance.stored_wall_ns, Instance.attributes).where(
        (Instance.group_id == group_id) & (Instance.state == InstanceState.GROUPED)
    )
    # Pages come in the order of names, which is not quite that of arrival when several receivers worked.
    for page in pages(query, Instance.identifier):
        for instance in page:
            for tag, seen in first.items():
                value = instance.attributes.get(tag, "")
                if value:
                    arrival = (instance.stored_wall_ns, instance.identifier)
                    seen[value] = min(seen.get(value, arrival), arrival)
    return named({tag: sorted(seen, key=seen.__getitem__) for tag, seen in first.items()})


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
