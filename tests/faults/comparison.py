"""Compares what was acknowledged with what pipelines were given: the promise in numbers."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_SHOWN = 5


@dataclass
class Comparison:
    """Of one pipeline.

    Args:
        acknowledged: objects that were answered 0x0000.
        lost: acknowledged objects that are in no job.
        doubled: objects that are in more than one job, or more than once in one.
        altered: objects whose bytes are not those that were sent.
        strange: objects that nobody sent.
        jobs: jobs that were executed.
        jobs_doubled: jobs that share an object with another.
        executions: of jobs; at least one each.
        changed: jobs that were executed again with another input.
    """

    acknowledged: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    altered: list[str] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)
    jobs: int = 0
    jobs_doubled: list[str] = field(default_factory=list)
    executions: int = 0
    changed: list[str] = field(default_factory=list)

    @property
    def faultless(self) -> bool:
        return not (self.lost or self.doubled or self.altered or self.strange or self.jobs_doubled or self.changed)

    def __str__(self) -> str:
        counts = {
            "acknowledged": self.acknowledged,
            "lost": len(self.lost),
            "doubled": len(self.doubled),
            "altered": len(self.altered),
            "strange": len(self.strange),
            "jobs": self.jobs,
            "jobs_doubled": len(self.jobs_doubled),
            "executions": self.executions,
            "changed": len(self.changed),
        }
        return " ".join(f"{name}={count}" for name, count in counts.items())

    def examples(self) -> str:
        """Some of what is wrong, for a failure's message."""
        names = ("lost", "doubled", "altered", "strange", "jobs_doubled", "changed")
        found = {name: getattr(self, name)[:_SHOWN] for name in names}
        return ", ".join(f"{name}: {some}" for name, some in found.items() if some)


def read_records(directory: Path) -> dict[str, list[list[tuple[str, str]]]]:
    """By job, what each of its executions was given: pairs of SOP Instance UID and digest."""
    found = defaultdict(list)
    for path in sorted(directory.iterdir()):
        job_id, _, serial = path.name.partition(".")
        if serial.isdigit():  # else it was not finished
            lines = path.read_text(encoding="ascii").splitlines()
            found[job_id].append([(line.split()[0], line.split()[1]) for line in sorted(lines)])
    return dict(found)


def compare(acknowledged: Mapping[str, str], sent: Mapping[str, str], records: Path) -> Comparison:
    """Compare one pipeline's records with what senders know.

    Args:
        acknowledged: digests by SOP Instance UID.
        sent: the same of all that was sent; what was sent and not acknowledged may be in a job, or not.
        records: the directory that `record.py` filled.
    """
    result = Comparison(acknowledged=len(acknowledged))
    jobs_of: dict[str, list[str]] = defaultdict(list)
    for job_id, executions in read_records(records).items():
        result.jobs += 1
        result.executions += len(executions)
        if any(other != executions[0] for other in executions):
            result.changed.append(job_id)
        for uid, found in executions[0]:
            jobs_of[uid].append(job_id)
            if uid not in sent:
                result.strange.append(uid)
            elif sent[uid] != found:
                result.altered.append(uid)
    result.lost = [uid for uid in acknowledged if uid not in jobs_of]
    result.doubled = [uid for uid, jobs in jobs_of.items() if len(jobs) > 1]
    result.jobs_doubled = sorted({job for jobs in jobs_of.values() if len(set(jobs)) > 1 for job in jobs})
    return result
