"""What lies below a directory while others work there: unlike `Path.rglob` these do not mind what goes meanwhile."""

import os
from pathlib import Path


def paths_below(directory: Path) -> list[Path]:
    """The directories and files."""
    return [Path(parent, name) for parent, below, names in os.walk(directory) for name in (*below, *names)]


def files_below(directory: Path, suffix: str = "") -> list[Path]:
    """The files whose names end so."""
    return [Path(parent, name) for parent, _, names in os.walk(directory) for name in names if name.endswith(suffix)]
