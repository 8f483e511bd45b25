"""How long the supervisor waits for its actors before it acts.

They are no settings: nobody who runs this system needs others. Tests, which cannot wait so long, give them in the
environment of the supervisor, in seconds.
"""

import os


def _seconds(name: str, default: float) -> float:
    return float(os.environ.get(f"DICOM_ADAPTER_{name}", default))


HEARTBEAT_LIMIT_SECONDS = _seconds("HEARTBEAT_LIMIT_SECONDS", 10.0)
"""An actor that was silent for so long, and does not wait for a disk, hangs, and is killed."""

START_LIMIT_SECONDS = _seconds("START_LIMIT_SECONDS", 60.0)
"""The same while it starts."""

STEADY_SECONDS = _seconds("STEADY_SECONDS", 60.0)
"""An actor that lived longer was in no crash loop: its successor starts at once."""
