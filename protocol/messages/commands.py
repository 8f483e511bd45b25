"""What the API has the owners of tables do, and what they answer beyond `Done` and `Refused`."""

from protocol.inference import Order
from protocol.messages.base import Message
from protocol.states import RunState


class AeTitlesChanged(Message, frozen=True, kw_only=True):
    """AE titles, or their settings, changed in the ledger."""


class PipelinesChanged(Message, frozen=True, kw_only=True):
    """Pipelines changed in the ledger."""


class ReleaseInstances(Message, frozen=True, kw_only=True):
    """Take instances out of quarantine and process them as well as can be."""

    identifiers: tuple[str, ...]


class DiscardInstances(Message, frozen=True, kw_only=True):
    """Give quarantined instances up; a person decided."""

    identifiers: tuple[str, ...]


class AcceptRequest(Message, frozen=True, kw_only=True):
    """To the retriever: take an inference request over, once its job is on the platform.

    Args:
        order: the request.
        until_ns: wall time after which the requester will have been told that it was not.
    """

    order: Order
    until_ns: int


class RequestAccepted(Message, frozen=True, kw_only=True):
    """Answer: the request is accepted, now or before; the platform's own identifiers."""

    job_id: str
    payload_id: str


class RequestDiffers(Message, frozen=True, kw_only=True):
    """Answer: its transaction ID belongs to another request."""


class JobsChosen(Message, frozen=True, kw_only=True):
    """The base of decisions about jobs: which are meant, those of all that is given. An empty field does not restrict.

    Args:
        since_ns, until_ns: wall time of the job's creation, 0 for no bound.
    """

    job_ids: tuple[str, ...] = ()
    ae_title: str = ""
    pipeline_id: str = ""
    since_ns: int = 0
    until_ns: int = 0


class RetryJobs(JobsChosen, frozen=True, kw_only=True):
    """Submit faulted jobs again.

    Args:
        failed: instead those that were submitted and whose run failed on the platform, which runs them again.
    """

    failed: bool = False


class DiscardJobs(JobsChosen, frozen=True, kw_only=True):
    """Give faulted jobs up."""


class DiscardRuns(JobsChosen, frozen=True, kw_only=True):
    """To the embedded platform: give up what the runs of some jobs have left.

    Args:
        state: Succeeded, results for which no export waits; Failed, inputs that are kept to be run again.
    """

    state: RunState


class RegisterTask(Message, frozen=True, kw_only=True):
    """Make an export task, or find the one that has this ID already. Fields as in `protocol.ledger.ExportTask`."""

    task_id: str
    job_id: str
    payload_id: str
    pipeline_id: str
    agent: str
    parameters: str
    uris: tuple[str, ...]


class TakeTasks(Message, frozen=True, kw_only=True):
    """Give pending tasks to an agent that is no part of this system; answered `TasksTaken`."""

    agent: str
    size: int


class TasksTaken(Message, frozen=True, kw_only=True):
    """Answer: these are the asking agent's for a while."""

    task_ids: tuple[str, ...]


class FinishTask(Message, frozen=True, kw_only=True):
    """From an agent that is no part of this system: how a task ended."""

    task_id: str
    succeeded: bool
    retry_later: bool = False


class RetryTasks(Message, frozen=True, kw_only=True):
    """Try export tasks again that failed, or wait for their next try. An empty field does not restrict."""

    task_ids: tuple[str, ...] = ()
    destination: str = ""


class CancelTasks(Message, frozen=True, kw_only=True):
    """Give export tasks up that are not over, or failed; a person decided. Fields as in `RetryTasks`."""

    task_ids: tuple[str, ...] = ()
    destination: str = ""


class ProbeDestination(Message, frozen=True, kw_only=True):
    """Ask a destination whether it is there; answered `DestinationAnswered`, or `Refused` with what was wrong.

    Args:
        destination: its name, or the URL of a DICOMweb service.
    """

    destination: str


class DestinationAnswered(Message, frozen=True, kw_only=True):
    """Answer: what it said, for people."""

    text: str
    seconds: float
