"""AE titles as the ledger has them, each with its job processor: what decides about an instance's group."""

import dataclasses
from collections.abc import Iterable

from actors.processor.foreign import ForeignPlugin, Surroundings
from actors.processor.plugin import OwnPlugin, Plugin
from protocol.errors import AdapterError
from protocol.job_processors import find, is_own
from protocol.ledger import AeTitle
from protocol.logs import EventLogger

_TIMEOUT_WITHOUT_PLUGIN_SECONDS = 5.0


@dataclasses.dataclass(frozen=True, slots=True)
class Service:
    """One AE title at work.

    Args:
        ae_title: the called AE title.
        processor: the name of its job processor.
        settings: its processor settings.
        overwrite: `overwriteSameInstance`.
        deleted: nothing new is received, and what is on the way still served.
        plugin: its job processor, None when it cannot be used.
        problem: why not.
    """

    ae_title: str
    processor: str
    settings: dict[str, str]
    overwrite: bool
    deleted: bool
    plugin: Plugin | None
    problem: str = ""

    @property
    def timeout_seconds(self) -> float:
        """How long a group must be quiet."""
        return self.plugin.timeout_seconds if self.plugin else _TIMEOUT_WITHOUT_PLUGIN_SECONDS

    def serves(self, row: AeTitle) -> bool:
        """Whether this was made from what a row says now."""
        return (self.processor, self.settings) == (row.processor, row.processor_settings) and not self.problem


class Registry:
    """The services by AE title.

    Args:
        log: where a job processor that cannot be used is told.
        around: what job processors of other packages need.
    """

    def __init__(self, log: EventLogger, around: Surroundings) -> None:
        self._log = log
        self._around = around
        self._services: dict[str, Service] = {}

    def refresh(self) -> None:
        """Read the AE titles again; job processors whose settings did not change stay.

        Raises:
            peewee.PeeweeException: the ledger does not answer; what was known stays.
        """
        rows = list(AeTitle.select().order_by(AeTitle.updated_ns))
        # Of several rows with one AE title the living one serves, else the one that was changed last.
        rows.sort(key=lambda row: row.deleted_ns is None)
        before = self._services
        self._services = {row.ae_title: self._service(row) for row in rows}
        used = {id(service.plugin) for service in self._services.values()}
        for service in before.values():
            if service.plugin is not None and id(service.plugin) not in used:
                service.plugin.close()

    def service(self, ae_title: str) -> Service | None:
        """The service of an AE title; None when it is not configured."""
        return self._services.get(ae_title)

    @property
    def full(self) -> set[str]:
        """AE titles of which so many instances wait for the job processor that no more should be described."""
        return {title for title, service in self._services.items() if service.plugin and service.plugin.full}

    @property
    def waiting(self) -> int:
        """How many instances wait for job processors."""
        return sum(service.plugin.waiting for service in self._services.values() if service.plugin is not None)

    def prepare(self, ae_titles: Iterable[str]) -> None:
        """The job processors of some AE titles will be needed soon."""
        for ae_title in ae_titles:
            service = self._services.get(ae_title)
            if service is not None and service.plugin is not None:
                service.plugin.prepare()

    def close(self) -> None:
        """End what job processors run in."""
        for service in self._services.values():
            if service.plugin is not None:
                service.plugin.close()

    def _service(self, row: AeTitle) -> Service:
        known = self._services.get(row.ae_title)
        plugin, problem = (known.plugin, "") if known and known.serves(row) else self._load(row)
        if problem and (known is None or known.problem != problem):
            self._log.error("job_processor_unusable", ae_title=row.ae_title, reason=problem)
        return Service(
            ae_title=row.ae_title,
            processor=row.processor,
            settings=row.processor_settings,
            overwrite=row.overwrite_same_instance,
            deleted=row.deleted_ns is not None,
            plugin=plugin,
            problem=problem,
        )

    def _load(self, row: AeTitle) -> tuple[Plugin | None, str]:
        name, settings = row.processor, row.processor_settings
        try:
            if is_own(find(name)):
                return OwnPlugin(name, row.ae_title, settings), ""
            return ForeignPlugin(name, row.ae_title, settings, self._around), ""
        except AdapterError as error:
            return None, str(error)
