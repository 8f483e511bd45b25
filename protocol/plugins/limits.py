"""How long a job processor of another package may think, and how much memory it may take.

They are no settings: nobody who runs this system needs others. Tests, which cannot wait so long, give the times in the
environment, in seconds.
"""

import os


def _seconds(name: str, default: float) -> float:
    return float(os.environ.get(f"DICOM_ADAPTER_{name}", default))


CHECK_SECONDS = _seconds("PLUGIN_CHECK_SECONDS", 10.0)
"""The API: from the start of the process until the settings are found valid or not."""

LOAD_SECONDS = _seconds("PLUGIN_LOAD_SECONDS", 30.0)
"""The processor: from the start of the process until the job processor is made."""

KEYS_SECONDS = _seconds("PLUGIN_KEYS_SECONDS", 10.0)
"""Grouping: from one sign of progress to the next."""

PLAN_SECONDS = _seconds("PLUGIN_PLAN_SECONDS", 60.0)
"""Planning the jobs of one group."""

LONGEST_PAUSE_SECONDS = _seconds("PLUGIN_LONGEST_PAUSE_SECONDS", 60.0)
"""What the pauses after failures grow to."""

MEMORY_BYTES = 2 * 1024**3
"""Memory that a host may write to, which is not what it may map."""

MOST_JOBS = 100
"""Jobs that one group may make."""

LONGEST_TEXT = 256
"""Characters of a job's label, and of its pipeline's ID."""

LONGEST_TIMEOUT_SECONDS = 31 * 86_400.0
