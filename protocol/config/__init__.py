"""The configuration: settings as structs, loading them from every source, and every problem found in them."""

import importlib
from typing import TYPE_CHECKING

from protocol.config.settings import Settings, database_file, decode, encode

if TYPE_CHECKING:
    from protocol.config.effective import Loaded, rows
    from protocol.config.environment import check_environment, environment_warnings
    from protocol.config.loading import load
    from protocol.config.problems import Problem

__all__ = [
    "Loaded",
    "Problem",
    "Settings",
    "check_environment",
    "database_file",
    "decode",
    "encode",
    "environment_warnings",
    "load",
    "rows",
]

# Every actor reads settings, but only who starts them loads any: the others need no YAML, no table, no SQLite.
_LATER = {
    "Loaded": "effective",
    "rows": "effective",
    "check_environment": "environment",
    "environment_warnings": "environment",
    "load": "loading",
    "Problem": "problems",
}


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
