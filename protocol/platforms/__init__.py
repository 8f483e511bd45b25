"""The platforms that jobs can be submitted to, behind one small interface.

The submitter creates and starts jobs, the exporter downloads what they left: both open the configured platform here.
What one kind of platform needs is imported when that kind is configured, and only then.
"""

import threading

from protocol.bus import Bus
from protocol.config import Settings
from protocol.errors import ConfigurationError
from protocol.platforms.base import Platform
from protocol.platforms.embedded import PATIENCE_SECONDS, EmbeddedPlatform

EMBEDDED = "embedded"


def open_platform(
    settings: Settings, bus: Bus, stopping: threading.Event, patience_seconds: float = PATIENCE_SECONDS
) -> Platform:
    """The platform that is configured.

    Args:
        settings: the effective ones.
        bus: of this process.
        stopping: set when this process is about to end.
        patience_seconds: how long the embedded platform is asked again before it counts as unreachable.

    Raises:
        ConfigurationError: it is none that can be used here.
    """
    endpoint = settings.services.platform.endpoint
    if endpoint == EMBEDDED:
        return EmbeddedPlatform(bus, stopping, patience_seconds)
    try:
        from protocol.platforms.clara.clara import ClaraPlatform  # noqa: PLC0415 - loads slowly, and is an extra
    except ImportError as error:
        raise ConfigurationError(
            f"DicomAdapter.services.platform.endpoint is {endpoint}, and what speaks with Clara Platform is not "
            f"installed here ({error.name}): install dicom-adapter[clara], or set it to embedded"
        ) from error
    return ClaraPlatform(settings, stopping)
