"""The effective settings as structs: what every process reads, and what the supervisor hands to its children.

They hold no defaults and check nothing: `table` does both, before anything is built.
"""

import msgspec


def _json_name(field: str) -> str:
    """Return the configuration file's spelling of a field: camelCase, but `logDataPDUs` and `reserveSpaceGB`."""
    first, *rest = field.split("_")
    return first + "".join({"pdus": "PDUs", "gb": "GB"}.get(word, word.capitalize()) for word in rest)


class Section(msgspec.Struct, frozen=True, kw_only=True, rename=_json_name):
    """What all sections share: immutable, built by keyword, named in JSON as in the configuration file."""


class Verification(Section, frozen=True, kw_only=True):
    """C-ECHO as SCP."""

    enabled: bool
    transfer_syntaxes: tuple[str, ...]


class Limits(Section, frozen=True, kw_only=True):
    """What a peer may cost the receiver before it is cut off."""

    first_bytes_seconds: float
    pdu_seconds: float
    idle_seconds: float
    write_seconds: float
    max_pdu_bytes: int
    max_associate_bytes: int
    max_command_bytes: int


class Scp(Section, frozen=True, kw_only=True):
    """What listens on the DICOM port."""

    port: int
    maximum_number_of_associations: int
    verification: Verification
    log_dimse_datasets: bool
    reject_unknown_sources: bool
    bind: tuple[str, ...]
    receivers: int
    maximum_associations_per_host: int
    drain_seconds: float
    repeat_seconds: float
    limits: Limits


class Export(Section, frozen=True, kw_only=True):
    """Results on their way out."""

    maximum_retries: int
    failure_threshold: float
    poll_frequency_ms: int
    agent: str


class Scu(Section, frozen=True, kw_only=True):
    """What opens associations to others."""

    ae_title: str
    log_dimse_datasets: bool
    log_data_pdus: bool
    maximum_number_of_associations: int
    export: Export


class Dicom(Section, frozen=True, kw_only=True):
    """Both sides of DIMSE."""

    scp: Scp
    scu: Scu


class PlatformTls(Section, frozen=True, kw_only=True):
    """TLS to Clara Platform; paths are absolute."""

    enabled: bool
    ca_file: str | None
    certificate_file: str | None
    key_file: str | None


class Platform(Section, frozen=True, kw_only=True):
    """Where jobs go; `metadata_dicom_source` holds tags as eight upper-case hex digits."""

    endpoint: str
    max_retries: int
    retry_delay_seconds: int
    parallel_uploads: int
    upload_metadata: bool
    metadata_dicom_source: tuple[str, ...]
    concurrent_runs: int
    results_days: int
    timeout_seconds: float
    tls: PlatformTls


class Services(Section, frozen=True, kw_only=True):
    """The services around the DICOM port."""

    platform: Platform
    results_service_endpoint: str
    stop_seconds: float


class Storage(Section, frozen=True, kw_only=True):
    """The spool: `temporary` is absolute, `quota_bytes` is None without a quota."""

    temporary: str
    watermark_percent: int
    reserve_space_gb: float
    sync_on_store: bool
    quota_bytes: int | None


class Api(Section, frozen=True, kw_only=True):
    """The REST API; `token_file` is absolute and read by the API itself, so that a new token needs no restart."""

    bind: str
    port: int
    token: str | None
    token_file: str | None
    allow_anonymous: bool


class Logging(Section, frozen=True, kw_only=True):
    """Levels per category (always with `Default`), and how lines look."""

    levels: dict[str, str]
    disable_colors: bool
    format: str


class Settings(Section, frozen=True, kw_only=True):
    """Everything that is configured, checked and with every default filled in.

    `database` is `sqlite:////absolute/path` or `postgresql://…`; `runtime_directory` is absolute.
    """

    dicom: Dicom
    services: Services
    storage: Storage
    api: Api
    database: str
    database_quota_bytes: int | None
    history_days: int
    logging: Logging
    allowed_hosts: tuple[str, ...]
    runtime_directory: str


_decoder = msgspec.json.Decoder(Settings)


def encode(settings: Settings) -> bytes:
    """Return the settings as JSON, secrets included: a file of it is for this user's processes alone."""
    return msgspec.json.encode(settings)


def decode(data: bytes) -> Settings:
    """Return the settings that `encode` wrote.

    Raises:
        msgspec.DecodeError: the bytes are no settings of this version.
    """
    return _decoder.decode(data)


def database_file(settings: Settings) -> str | None:
    """Return the absolute path of an SQLite ledger, or None for a database server."""
    prefix, _, path = settings.database.partition("sqlite:///")
    return path if not prefix else None
