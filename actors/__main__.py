"""Starts one actor in this process: `python -m actors`, spawned by the supervisor with its birth in the environment."""

import importlib
import os
import resource
import sys
import threading

from actors.actor import Actor
from actors.privileges import drop_capabilities
from protocol.birth import Birth
from protocol.config import decode
from protocol.errors import AdapterError
from protocol.logs import EventLogger, set_up
from protocol.spool import UMASK


def main() -> int:
    """Run the actor that the environment names; returns the exit code."""
    birth = Birth.from_environment()
    os.umask(UMASK)
    # A core dump would be patient data in the wrong place.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    settings = decode(birth.settings_file.read_bytes())
    set_up(settings, birth.name)
    log = EventLogger(f"adapter.{birth.kind}")
    # Python's own hook would write the exception's message, and with it maybe patient data, beside the log.
    threading.excepthook = lambda _: log.unexpected("thread_failed")
    try:
        module = importlib.import_module(f"actors.{birth.kind}.{birth.kind}")
        kind: type[Actor] = getattr(module, birth.kind.capitalize())
        if not kind.needs_capabilities:
            drop_capabilities()
        actor = kind(birth, settings)
        actor.run()
    except AdapterError as error:
        log.critical("cannot_go_on", reason=str(error))
        return error.exit_code
    except Exception:
        log.unexpected("actor_failed")
        return 70
    return 0


if __name__ == "__main__":
    sys.exit(main())
