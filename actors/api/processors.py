"""Job processors as the API needs them: to check an AE title's settings, and to know what elements it groups by."""

from collections.abc import Mapping

from protocol import job_processors
from protocol.errors import NotFoundError
from protocol.job_processors import JobProcessor
from protocol.logs import EventLogger


class Processors:
    """The installed job processors, each loaded once.

    What a plug-in raises is its author's fault and must not harm other AE titles, so everything is caught here,
    logged, and told as a problem of that AE title.
    """

    def __init__(self) -> None:
        self._log = EventLogger("adapter.api")
        self._loaded: dict[str, type[JobProcessor]] = {}

    def problems(self, name: str, settings: Mapping[str, str]) -> list[str]:
        """Everything that is wrong with a processor's name and settings."""
        try:
            return [f"processorSettings: {problem}" for problem in self._load(name).validate(settings)]
        except NotFoundError as error:
            return [f"processor: {error}"]
        except Exception as error:
            self._log.error("job_processor_failed", processor=name, step="validate", error=type(error).__name__)
            return [f"processor: {name!r} could not check its settings ({type(error).__name__}): mend the plug-in"]

    def tags(self, name: str, ae_title: str, settings: Mapping[str, str]) -> tuple[str, ...] | None:
        """The elements that a processor groups by; None when it does not tell."""
        try:
            return tuple(self._load(name)(ae_title, settings).tags)
        except Exception as error:
            self._log.error(
                "job_processor_failed", processor=name, step="tags", ae_title=ae_title, error=type(error).__name__
            )
            return None

    def _load(self, name: str) -> type[JobProcessor]:
        """The class of a name; what is not installed is looked for again each time."""
        if name not in self._loaded:
            self._loaded[name] = job_processors.load(name)
        return self._loaded[name]
