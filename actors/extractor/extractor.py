"""The extractor's actor: reads the headers of instances that receivers have stored, and tells the processor.

It keeps no state: a message that is lost, or an extractor that is killed, is made good by the processor's sweep, which
asks again for what is on disk but not on record. It remembers one thing, what extractors died of (`deaths.py`), so that
such an instance is given up.
"""

import functools
import os
import time
from collections import OrderedDict
from collections.abc import Iterator
from urllib.parse import urlsplit

import msgspec

from actors.actor import Actor, Timer
from actors.extractor import header as dicom
from actors.extractor.deaths import MOST_DEATHS, Deaths
from actors.extractor.familiar import Familiars
from actors.extractor.patience import LOOK_SECONDS, Patience
from protocol import channels, killpoints
from protocol.access import AccessFile
from protocol.birth import Birth
from protocol.bus import Sender
from protocol.config import Settings
from protocol.logs import Repeats
from protocol.messages import (
    DescribedInstance,
    DescribeInstances,
    InstancesDescribed,
    InstancesStored,
    StoredInstance,
)
from protocol.spool import Spool

BATCH = 200
"""Instances of one message to the processor at most."""
TURN_SECONDS = 0.1
"""After so long a batch ends early, so that the main loop, and its heartbeat, go on."""
MOST_WAITING = 100_000
"""Instances that may wait here; what comes beyond is left to the processor's sweep."""
_UNKNOWN = "unknown"

_Queue = OrderedDict[str, StoredInstance]


class Extractor(Actor):
    """Describes instances: identifiers, association, and the elements that jobs and job processors want."""

    kind = "extractor"

    def __init__(self, birth: Birth, settings: Settings) -> None:
        super().__init__(birth, settings)
        self._spool = Spool(settings.storage.temporary)
        self._access = AccessFile(self._spool.access)
        self._wanted_tags: tuple[str, ...] | None = None
        self._wanted = dicom.Wanted(())
        self._familiars = Familiars()
        # In the order of their arrival, by identifier: what is asked for twice is described once.
        self._waiting: _Queue = OrderedDict()
        self._released: _Queue = OrderedDict()
        # An extractor died of these: each is read alone, when nothing else waits; with whether a person released it.
        self._suspected: dict[str, tuple[StoredInstance, bool]] = {}
        self._deaths = Deaths(birth.runtime, birth.name)
        self._turn_is_due = False
        self._patience = Patience(self.board)
        self._look: Timer | None = None
        self._troubles = Repeats(self.log.warning)
        self._descriptions: Sender

    def start(self) -> None:
        """Connect to the processor."""
        self._descriptions = self.bus.sender(channels.DESCRIPTIONS)
        self.every(10.0, self._troubles.flush)

    def handle_instances_stored(self, message: InstancesStored) -> None:
        """Receivers have stored instances: they may wait for the end of a burst."""
        self._enqueue(self._waiting, message.instances)
        if not self._waiting or self._turn_is_due or self.draining:
            self._work_soon()
            return
        if self._look is None:
            self._patience.begin()
            self._look = self.after(LOOK_SECONDS, self._look_again)
        self._patience.add(message.instances)

    def handle_describe_instances(self, message: DescribeInstances) -> None:
        """The processor misses descriptions, or a person released instances from quarantine."""
        self._enqueue(self._released if message.lenient else self._waiting, message.instances)
        self._work_soon()

    def drain(self) -> None:
        """Describe what waits, and end."""
        self._work_soon()
        if not self._turn_is_due:
            self.finish()

    def stop(self) -> None:
        """Write the rest of the summed-up warnings."""
        self._troubles.flush(everything=True)

    def busy_with(self) -> str:
        """How many instances wait."""
        count = len(self._waiting) + len(self._released) + len(self._suspected)
        return f"{count} waiting" if count else ""

    def _enqueue(self, queue: _Queue, instances: tuple[StoredInstance, ...]) -> None:
        for instance in instances:
            if len(queue) >= MOST_WAITING:
                self._troubles.add("instances_left_to_the_sweep", "bus", waiting=len(queue))
                break
            queue.setdefault(instance.identifier, instance)

    def _look_again(self) -> None:
        self._look = None
        if self._patience.is_over():
            self._work_soon()
        else:
            self._look = self.after(LOOK_SECONDS, self._look_again)

    def _work_soon(self) -> None:
        """Describe a batch in the next turn, if there is any; all that waits follows."""
        if self._look is not None:
            self._look.cancel()
            self._look = None
        if not self._turn_is_due and (self._released or self._waiting or self._suspected):
            self._turn_is_due = True
            self.post(self._describe_batch)

    def _describe_batch(self) -> None:
        """Describe for one turn of the main loop; those that a person waits for first."""
        self._turn_is_due = False
        self._look_up_wanted()
        self._deaths.refresh()
        lenient = bool(self._released)
        if self._released or self._waiting:
            described = tuple(self._described(self._released if lenient else self._waiting, lenient))
        else:
            described, lenient = self._described_alone()
        if described:
            killpoints.reach("extractor.described")
            self._descriptions.send(InstancesDescribed(instances=described, lenient=lenient))
            killpoints.reach("extractor.descriptions-sent")
            self.log.debug("instances_described", count=len(described))
        self._work_soon()
        if self.draining and not self._turn_is_due:
            self.finish()

    def _described(self, queue: _Queue, lenient: bool) -> Iterator[DescribedInstance]:
        ends = time.monotonic() + TURN_SECONDS
        for _ in range(min(BATCH, len(queue))):
            instance = queue.popitem(last=False)[1]
            if self._deaths.of(instance.identifier):
                self._suspected[instance.identifier] = instance, lenient
                continue
            described = self._describe(instance, lenient)
            if described is not None:
                yield described
            if time.monotonic() >= ends:
                return

    def _described_alone(self) -> tuple[tuple[DescribedInstance, ...], bool]:
        """Describe one of the suspected, or give it up; with whether a person released it."""
        instance, lenient = self._suspected.pop(next(iter(self._suspected)))
        deaths = self._deaths.of(instance.identifier)
        if deaths < MOST_DEATHS:
            described = self._describe(instance, lenient)
            return (() if described is None else (described,)), lenient
        self._deaths.forget(instance.identifier)
        try:
            size = os.stat(self._spool.instance_path(instance.identifier)).st_size
        except FileNotFoundError:
            return (), lenient
        self.log.error("instance_given_up", identifier=instance.identifier, deaths=deaths)
        problem = f"{deaths} extractors ended while they read it"
        given_up = DescribedInstance(identifier=instance.identifier, stored=instance.stored, size=size, problem=problem)
        return (given_up,), lenient

    def _describe(self, instance: StoredInstance, lenient: bool) -> DescribedInstance | None:
        """Describe one instance, whatever is wrong with it; None leaves it to the next sweep."""
        self._deaths.begin(instance.identifier)
        try:
            killpoints.reach("extractor.reading")
            header = dicom.describe(
                self._spool.instance_path(instance.identifier), self._wanted, self._familiars.of(instance.identifier)
            )
        except FileNotFoundError:
            self.log.debug("instance_gone", identifier=instance.identifier)
            return None
        except OSError as error:
            # It may pass (an input/output error, too many open files), so it is no reason for quarantine.
            reason = error.strerror or type(error).__name__
            self._troubles.add("instance_not_read", "spool", identifier=instance.identifier, error=reason)
            return None
        except Exception as error:
            self.log.unexpected("instance_not_described", identifier=instance.identifier)
            header = dicom.Header(problem=f"could not be read ({type(error).__name__})")
        finally:
            self._deaths.end()
        return _description(instance, header, self._wanted, lenient)

    def _look_up_wanted(self) -> None:
        """Follow the settings and the AE titles; the last good ones stay when the new ones cannot be read."""
        try:
            rules = self._access.current().ae_titles
            configured = self.settings.services.platform.metadata_dicom_source
            tags = (*configured, *(tag for rule in rules for tag in rule.tags))
            if tags != self._wanted_tags:
                self._wanted = dicom.Wanted(tags)
                self._familiars = Familiars()
                self._wanted_tags = tags
        except (OSError, ValueError, msgspec.DecodeError) as error:
            self._troubles.add("access_list_not_read", "spool", error=type(error).__name__)


def _description(
    instance: StoredInstance, header: dicom.Header, wanted: dicom.Wanted, lenient: bool
) -> DescribedInstance:
    """What is told of an instance.

    Args:
        instance: what is described.
        header: what was read of it.
        wanted: what was to be read.
        lenient: make the best of it: whatever is wrong is no problem.
    """
    missing = _UNKNOWN if lenient else ""
    meta, values = header.meta, header.values
    return DescribedInstance(
        identifier=instance.identifier,
        stored=instance.stored,
        size=header.size,
        dataset_offset=header.dataset_offset,
        called_ae_title=meta.get(dicom.RECEIVING_AE_TITLE, ""),
        calling_ae_title=meta.get(dicom.SENDING_AE_TITLE, ""),
        host=_host(meta.get(dicom.SOURCE_PRESENTATION_ADDRESS, "")),
        sop_class_uid=meta.get(dicom.MEDIA_SOP_CLASS_UID, missing),
        sop_instance_uid=meta.get(dicom.MEDIA_SOP_INSTANCE_UID, missing),
        transfer_syntax_uid=meta.get(dicom.TRANSFER_SYNTAX_UID, ""),
        study_uid=values.get(dicom.STUDY_INSTANCE_UID, missing)[:64],
        series_uid=values.get(dicom.SERIES_INSTANCE_UID, missing)[:64],
        patient_id=values.get(dicom.PATIENT_ID, ""),
        attributes=header.attributes(wanted),
        problem="" if lenient else header.problem,
    )


@functools.lru_cache(maxsize=256)
def _host(presentation_address: str) -> str:
    """The host of a presentation address, a URI such as `dicom://10.0.0.1:104` (PS3.10 §7.1)."""
    try:
        return urlsplit(presentation_address).hostname or presentation_address
    except ValueError:
        return presentation_address
