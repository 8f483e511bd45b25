"""The one table of settings: it makes the parser, the checks, the shipped file and the page of documentation."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from protocol.config import kinds
from protocol.config.kinds import Kind


@dataclass(frozen=True)
class Setting:
    """One setting.

    Args:
        path: as in `appsettings.json`, with dots between the names.
        default: the value without any source, as one would write it; a function where it depends on the machine.
        kind: what is allowed.
        about: one sentence for the page and the shipped file.
        field: where it stands in `Settings`, by JSON names; empty for the path without `DicomAdapter.`.
        default_words: the default in words, where the value would not say it.
        secret: never shown.
    """

    path: str
    default: object
    kind: Kind
    about: str
    field: str = ""
    default_words: str = ""
    secret: bool = False

    @property
    def key(self) -> tuple[str, ...]:
        """The path's names in the one case in which they are compared."""
        return key_of(self.path.split("."))

    @property
    def target(self) -> list[str]:
        """The names of the sections and the field in `Settings`."""
        return (self.field or self.path.removeprefix("DicomAdapter.")).split(".")

    def default_value(self) -> Any:
        """Return the default on this machine."""
        return self.default() if callable(self.default) else self.default


def key_of(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of a path as they are compared: in any case, as .NET does."""
    return tuple(name.lower() for name in names)


def cores(most: int = 2**16) -> Callable[[], int]:
    """Return a function for the number of processor cores that this process may use, at most `most`."""
    return lambda: min(len(os.sched_getaffinity(0)), most)


_LEVELS = ("Trace", "Debug", "Information", "Warning", "Error", "Critical", "None")

SETTINGS = (
    Setting(
        "DicomAdapter.dicom.scp.port",
        104,
        kinds.whole(1, 65535),
        "TCP port on which associations are accepted.",
    ),
    Setting(
        "DicomAdapter.dicom.scp.bind",
        ("0.0.0.0",),  # noqa: S104 - modalities are other machines
        kinds.list_of(
            kinds.address(), "IP addresses of this machine, 0.0.0.0 for all of IPv4, :: for all of IPv6", r"[;,\s]+"
        ),
        "Address or addresses of the DICOM port.",
    ),
    Setting(
        "DicomAdapter.dicom.scp.receivers",
        cores(4),
        kinds.whole(1, 64),
        "Receiver processes that share the port.",
        default_words="the cores it may use, at most 4",
    ),
    Setting(
        "DicomAdapter.dicom.scp.maximumNumberOfAssociations",
        25,
        kinds.whole(1, 1000),
        "Associations at the same time, over all receivers; one more is rejected as transient.",
    ),
    Setting(
        "DicomAdapter.dicom.scp.maximumAssociationsPerHost",
        0,
        kinds.whole(0, 1000),
        "How many of them one peer may hold; 0 is no limit.",
    ),
    Setting(
        "DicomAdapter.dicom.scp.verification.enabled",
        True,
        kinds.flag(),
        "Whether C-ECHO is answered; otherwise who proposes it is rejected.",
    ),
    Setting(
        "DicomAdapter.dicom.scp.verification.transferSyntaxes",
        ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"),
        kinds.list_of(kinds.transfer_syntax(), "one or more UIDs of transfer syntaxes"),
        "Transfer syntaxes accepted for C-ECHO; storage takes any.",
    ),
    Setting(
        "DicomAdapter.dicom.scp.logDimseDatasets",
        False,
        kinds.flag(),
        "Write received commands and data sets to the log: patient data will be in it.",
    ),
    Setting(
        "DicomAdapter.dicom.scp.rejectUnknownSources",
        True,
        kinds.flag(),
        "Reject associations from what is not among the sources (AE title and host both).",
    ),
    Setting(
        "DicomAdapter.dicom.scp.drainSeconds",
        900,
        kinds.seconds(0, 86400),
        "How long a receiver that is replaced may finish its associations.",
    ),
    Setting(
        "DicomAdapter.dicom.scp.repeatSeconds",
        60,
        kinds.seconds(0, 86400),
        "How long a byte-identical repeat of what a closed group holds makes no new job.",
    ),
    Setting(
        "DicomAdapter.dicom.scp.limits.firstBytesSeconds",
        10,
        kinds.seconds(0.1, 3600),
        "How long a new connection may take for its whole A-ASSOCIATE-RQ.",
    ),
    Setting(
        "DicomAdapter.dicom.scp.limits.pduSeconds",
        60,
        kinds.seconds(0.1, 3600),
        "How long one PDU may take from its first byte to its last.",
    ),
    Setting(
        "DicomAdapter.dicom.scp.limits.idleSeconds",
        300,
        kinds.seconds(0.1, 86400),
        "How long an association may be silent between PDUs before it is aborted.",
    ),
    Setting(
        "DicomAdapter.dicom.scp.limits.writeSeconds",
        30,
        kinds.seconds(0.1, 3600),
        "How long a peer may leave an answer unread.",
    ),
    Setting(
        "DicomAdapter.dicom.scp.limits.maxPduBytes",
        131072,
        kinds.whole(4096, 1048576),
        "Longest P-DATA PDU that is announced to peers and taken from them.",
    ),
    Setting(
        "DicomAdapter.dicom.scp.limits.maxAssociateBytes",
        1048576,
        kinds.whole(4096, 16777216),
        "Longest A-ASSOCIATE-RQ that is read.",
    ),
    Setting(
        "DicomAdapter.dicom.scp.limits.maxCommandBytes",
        65536,
        kinds.whole(1024, 1048576),
        "Longest command set that is read.",
    ),
    Setting(
        "DicomAdapter.dicom.scu.aeTitle",
        "ClaraSCU",
        kinds.ae_title(),
        "AE title with which results are sent; it is also the export agent's name for them.",
    ),
    Setting(
        "DicomAdapter.dicom.scu.logDimseDatasets",
        False,
        kinds.flag(),
        "Write sent commands and data sets to the log: patient data will be in it.",
    ),
    Setting(
        "DicomAdapter.dicom.scu.logDataPDUs",
        False,
        kinds.flag(),
        "Write a line for each P-DATA-TF PDU that is sent or received.",
    ),
    Setting(
        "DicomAdapter.dicom.scu.maximumNumberOfAssociations",
        8,
        kinds.whole(1, 100),
        "Outgoing associations at the same time.",
    ),
    Setting(
        "DicomAdapter.dicom.scu.export.maximumRetries",
        3,
        kinds.whole(0),
        "How often an export task is retried before its failure is final.",
    ),
    Setting(
        "DicomAdapter.dicom.scu.export.failureThreshold",
        0.5,
        kinds.decimal(0, 1),
        "Share of a task's files that may fail before the task fails.",
    ),
    Setting(
        "DicomAdapter.dicom.scu.export.pollFrequencyMs",
        500,
        kinds.whole(1),
        "Milliseconds between two looks for new export tasks.",
    ),
    Setting(
        "DicomAdapter.dicom.scu.export.agent",
        "DICOMweb",
        kinds.matching(r"[\x20-\x7e]{1,64}", "1 to 64 characters of ASCII", "is no agent's name"),
        "The export agent's name for what goes to DICOMweb destinations.",
    ),
    Setting(
        "DicomAdapter.services.platform.endpoint",
        "embedded",
        kinds.embedded_or("endpoint"),
        "Where jobs run: on this machine, or on Clara Platform.",
    ),
    Setting(
        "DicomAdapter.services.platform.maxRetries",
        3,
        kinds.whole(0),
        "How often each step of a job is retried before the job is faulted.",
    ),
    Setting(
        "DicomAdapter.services.platform.retryDelaySeconds",
        180,
        kinds.whole(0),
        "Seconds before a failed step is tried again.",
    ),
    Setting(
        "DicomAdapter.services.platform.parallelUploads",
        4,
        kinds.whole(1),
        "Files of one job that are uploaded at the same time.",
    ),
    Setting(
        "DicomAdapter.services.platform.uploadMetadata",
        False,
        kinds.flag(),
        "Send the values of the tags below with each job; patient data leaves this system with them.",
    ),
    Setting(
        "DicomAdapter.services.platform.metadataDicomSource",
        ("0008,0020", "0008,0060", "0008,1030", "0008,103E", "0010,0020", "0010,0030", "0010,1010", "0020,000D"),
        kinds.list_of(kinds.dicom_tag(), "DICOM tags such as 0010,0020, of text or numbers"),
        "Tags whose distinct values make a job's metadata.",
    ),
    Setting(
        "DicomAdapter.services.platform.concurrentRuns",
        cores(),
        kinds.whole(1, 1000),
        "Pipelines that the embedded platform runs at the same time.",
        default_words="the cores it may use",
    ),
    Setting(
        "DicomAdapter.services.platform.resultsDays",
        0,
        kinds.whole(0, 36500),
        "Days after which results that no export waits for are deleted; 0: when a person discards them.",
    ),
    Setting(
        "DicomAdapter.services.platform.timeoutSeconds",
        30,
        kinds.seconds(0.1, 3600),
        "How long a call to Clara Platform may take; an upload may take a second more for each 128 KiB.",
    ),
    Setting(
        "DicomAdapter.services.platform.tls.enabled",
        False,
        kinds.flag(),
        "Whether Clara Platform is spoken to by TLS.",
    ),
    Setting(
        "DicomAdapter.services.platform.tls.caFile",
        None,
        kinds.optional(kinds.path()),
        "PEM file of the authorities that may have signed Clara Platform's certificate.",
        default_words="those of the system",
    ),
    Setting(
        "DicomAdapter.services.platform.tls.certificateFile",
        None,
        kinds.optional(kinds.path()),
        "PEM file of the certificate that is shown to Clara Platform, with what it was signed by.",
        default_words="none",
    ),
    Setting(
        "DicomAdapter.services.platform.tls.keyFile",
        None,
        kinds.optional(kinds.path()),
        "PEM file of that certificate's private key.",
        default_words="none",
    ),
    Setting(
        "DicomAdapter.services.resultsServiceEndpoint",
        "embedded",
        kinds.embedded_or("url"),
        "Where export tasks come from: this system's own ledger, or Clara's Results Service.",
    ),
    Setting(
        "DicomAdapter.services.stopSeconds",
        10,
        kinds.seconds(0, 3600),
        "How long a stop of everything may take before what is left is cut.",
    ),
    Setting(
        "DicomAdapter.storage.temporary",
        "/payloads",
        kinds.path(),
        "Directory of received instances, payloads and results (the spool).",
    ),
    Setting(
        "DicomAdapter.storage.watermarkPercent",
        75,
        kinds.whole(1, 100),
        "Use of the file system (or of the quota, if smaller) above which nothing more is taken in.",
    ),
    Setting(
        "DicomAdapter.storage.reserveSpaceGB",
        5,
        kinds.decimal(0),
        "Free space, in units of 10⁹ bytes, below which nothing more is taken in.",
    ),
    Setting(
        "DicomAdapter.storage.volumeSize",
        None,
        kinds.optional(kinds.quantity()),
        "Quota of the spool.",
        field="storage.quotaBytes",
        default_words="none: the file system is the limit",
    ),
    Setting(
        "DicomAdapter.storage.syncOnStore",
        True,
        kinds.flag(),
        "Sync to stable storage before C-STORE is answered; false may lose answered instances in a power cut.",
    ),
    Setting(
        "DicomAdapter.api.bind",
        "127.0.0.1",
        kinds.address(),
        "Address of the REST API; beyond loopback it wants a token.",
    ),
    Setting(
        "DicomAdapter.api.port",
        5000,
        kinds.whole(1, 65535),
        "TCP port of the REST API.",
    ),
    Setting(
        "DicomAdapter.api.token",
        None,
        kinds.optional(kinds.bearer_token()),
        "Bearer token that the REST API wants from beyond loopback.",
        default_words="none",
        secret=True,
    ),
    Setting(
        "DicomAdapter.api.tokenFile",
        None,
        kinds.optional(kinds.path()),
        "File that holds the token, instead of `token`.",
        default_words="none",
    ),
    Setting(
        "DicomAdapter.api.allowAnonymous",
        False,
        kinds.flag(),
        "Serve anyone who reaches the REST API, without a token.",
    ),
    Setting(
        "DicomAdapter.database.volumeSize",
        None,
        kinds.optional(kinds.quantity()),
        "Size of the ledger above which it is warned of, and then nothing more is taken in.",
        field="databaseQuotaBytes",
        default_words="none",
    ),
    Setting(
        "DicomAdapter.database.historyDays",
        90,
        kinds.whole(1, 36500),
        "How long what is over stays on record: a group, its jobs and exports; less where the ledger nears its quota.",
        field="historyDays",
    ),
    Setting(
        "DicomAdapter.runtimeDirectory",
        None,
        kinds.optional(kinds.path()),
        "Directory of the sockets between the processes; the command line finds the supervisor by it.",
        default_words="`$RUNTIME_DIRECTORY` (systemd), else a directory beside the ledger",
    ),
    Setting(
        "ConnectionStrings.DicomAdapterDatabase",
        "Data Source=dicomadapter.db",
        kinds.database(),
        "The ledger; a relative file starts at `$STATE_DIRECTORY` (systemd), else at the working directory.",
        field="database",
    ),
    Setting(
        "Logging.LogLevel",
        {"Default": "Information"},
        kinds.map_of(kinds.choice(*_LEVELS), f"a level for each category: {', '.join(_LEVELS)}"),
        "Least level that is logged; of the categories that begin a line's category the longest decides.",
        field="logging.levels",
    ),
    Setting(
        "Logging.Console.disableColors",
        False,
        kinds.flag(),
        "No colours even on a terminal.",
        field="logging.disableColors",
    ),
    Setting(
        "Logging.Console.format",
        "auto",
        kinds.choice("auto", "text", "json"),
        "Text for people, or one JSON object a line; `auto` is text, with priorities under systemd.",
        field="logging.format",
    ),
    Setting(
        "AllowedHosts",
        ("*",),
        kinds.list_of(kinds.allowed_host(), "host names, separated by semicolons; * for any"),
        "What a request's Host header may say.",
        field="allowedHosts",
    ),
)

BY_KEY = {setting.key: setting for setting in SETTINGS}

SECTIONS = {
    key_of(names[:length]): ".".join(names[:length])
    for names in (setting.path.split(".") for setting in SETTINGS)
    for length in range(1, len(names))
}
"""Every section by its key, in the spelling of the table."""

ROOTS = {setting.key[0] for setting in SETTINGS}
