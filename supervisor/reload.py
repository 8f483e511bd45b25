"""What new settings change in a gateway that runs."""

from collections.abc import Callable

from protocol.channels import KINDS
from protocol.config import Settings
from protocol.errors import ConfigurationError

# Which actors are replaced when a part of the settings has changed; levels of logging reach all without that.
_RESTARTED_BY: tuple[tuple[Callable[[Settings], object], tuple[str, ...]], ...] = (
    (lambda settings: settings.storage, KINDS),
    (lambda settings: settings.dicom.scp, ("receiver", "processor")),
    (lambda settings: settings.services.platform, ("extractor", "submitter", "platform", "exporter")),
    (lambda settings: (settings.dicom.scu, settings.services.results_service_endpoint), ("exporter",)),
    (lambda settings: (settings.api, settings.allowed_hosts), ("api",)),
)

# What was decided when the supervisor started, so that a reload cannot change it.
_FIXED: tuple[tuple[str, Callable[[Settings], object]], ...] = (
    ("dicom.scp.port", lambda settings: settings.dicom.scp.port),
    ("dicom.scp.bind", lambda settings: settings.dicom.scp.bind),
    ("dicom.scp.receivers", lambda settings: settings.dicom.scp.receivers),
    ("api.port", lambda settings: settings.api.port),
    ("api.bind", lambda settings: settings.api.bind),
    ("storage.temporary", lambda settings: settings.storage.temporary),
    ("runtimeDirectory", lambda settings: settings.runtime_directory),
    # Another ledger knows neither the AE titles nor what is under way.
    ("ConnectionStrings.DicomAdapterDatabase", lambda settings: settings.database),
)


def kinds_replaced(old: Settings, new: Settings) -> set[str]:
    """The kinds of actors that must start anew to take new settings.

    Args:
        old: in force until now.
        new: from now on.

    Raises:
        ConfigurationError: they differ in what only a new supervisor can take.
    """
    fixed = [name for name, part in _FIXED if part(old) != part(new)]
    if fixed:
        raise ConfigurationError(f"a change of {', '.join(fixed)} takes a restart of the gateway")
    return {kind for part, kinds in _RESTARTED_BY if part(old) != part(new) for kind in kinds}
