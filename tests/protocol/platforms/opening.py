"""Opens Clara Platform for a test."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from protocol.config import load
from protocol.platforms.clara.clara import ClaraPlatform

PLATFORM = "DicomAdapter.services.platform"


@contextlib.contextmanager
def opened(
    endpoint: str, directory: Path, stopping: threading.Event, *sets: str, timeout_seconds: float = 10.0
) -> Iterator[ClaraPlatform]:
    """The platform at an endpoint."""
    config = directory / "appsettings.json"
    config.write_text("{}")
    all_sets = [f"{PLATFORM}.endpoint={endpoint}", f"{PLATFORM}.timeoutSeconds={timeout_seconds}", *sets]
    platform = ClaraPlatform(load(config, None, all_sets, {}).settings, stopping)
    with contextlib.closing(platform):
        yield platform
