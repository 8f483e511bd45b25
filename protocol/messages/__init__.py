"""What processes say to each other, in pipeline order: facts in the past tense, commands in the imperative.

Every message may be lost or come twice; what it tells stands on disk or in the ledger already. New fields get
defaults; types never change.
"""

from protocol.messages.base import Done, Message, Refused, decoder, encode
from protocol.messages.commands import (
    AcceptRequest,
    AeTitlesChanged,
    CancelTasks,
    DestinationAnswered,
    DiscardInstances,
    DiscardJobs,
    DiscardRuns,
    FinishTask,
    JobsChosen,
    PipelinesChanged,
    ProbeDestination,
    RegisterTask,
    ReleaseInstances,
    RequestAccepted,
    RequestDiffers,
    RetryJobs,
    RetryTasks,
    TakeTasks,
    TasksTaken,
)
from protocol.messages.flow import (
    CancelJob,
    CreateJob,
    DescribedInstance,
    DescribeInstances,
    InstancesDescribed,
    InstancesStored,
    JobCreated,
    JobsCreated,
    PayloadsRetrieved,
    ResultsRegistered,
    StoredInstance,
)
from protocol.messages.runs import AddRunMetadata, CancelRun, CreateRun, FindRun, RunAgain, RunCreated, StartRun
from protocol.messages.supervision import (
    ActorStatus,
    Drain,
    Draining,
    GetStatus,
    Heartbeat,
    Ready,
    RestartActors,
    SettingsChanged,
    Status,
    StorageStatus,
)

__all__ = [
    "AcceptRequest",
    "ActorStatus",
    "AddRunMetadata",
    "AeTitlesChanged",
    "Answer",
    "CancelJob",
    "CancelRun",
    "CancelTasks",
    "ControlAnswer",
    "ControlRequest",
    "CreateJob",
    "CreateRun",
    "DescribeInstances",
    "DescribedInstance",
    "DestinationAnswered",
    "DiscardInstances",
    "DiscardJobs",
    "DiscardRuns",
    "Done",
    "Drain",
    "Draining",
    "ExporterCommand",
    "FindRun",
    "FinishTask",
    "FromActor",
    "GetStatus",
    "Heartbeat",
    "InstancesDescribed",
    "InstancesStored",
    "JobCreated",
    "JobsChosen",
    "JobsCreated",
    "Message",
    "PayloadsRetrieved",
    "PipelinesChanged",
    "PlatformCommand",
    "ProbeDestination",
    "ProcessorCommand",
    "Ready",
    "Refused",
    "RegisterTask",
    "ReleaseInstances",
    "RequestAccepted",
    "RequestDiffers",
    "RestartActors",
    "ResultsRegistered",
    "RetrieverCommand",
    "RetryJobs",
    "RetryTasks",
    "RunAgain",
    "RunCreated",
    "SettingsChanged",
    "StartRun",
    "Status",
    "StorageStatus",
    "StoredInstance",
    "SubmitterCommand",
    "TakeTasks",
    "TasksTaken",
    "ToActor",
    "ToExporter",
    "ToExtractor",
    "ToProcessor",
    "ToSubmitter",
    "decoder",
    "encode",
]

ToExtractor = InstancesStored | DescribeInstances
ToProcessor = InstancesDescribed
ProcessorCommand = AeTitlesChanged | ReleaseInstances | DiscardInstances
ToSubmitter = JobsCreated | PayloadsRetrieved
SubmitterCommand = RetryJobs | DiscardJobs | CreateJob | CancelJob
RetrieverCommand = AcceptRequest
PlatformCommand = (
    CreateRun | FindRun | AddRunMetadata | StartRun | CancelRun | RunAgain | DiscardRuns | PipelinesChanged
)
ToExporter = ResultsRegistered
ExporterCommand = RegisterTask | TakeTasks | FinishTask | RetryTasks | CancelTasks | ProbeDestination
Answer = Done | Refused | RunCreated | JobCreated | RequestAccepted | RequestDiffers | TasksTaken | DestinationAnswered
FromActor = Ready | Heartbeat | Draining
ToActor = Drain | SettingsChanged
ControlRequest = GetStatus | RestartActors
ControlAnswer = Status | Done | Refused
