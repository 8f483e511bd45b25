"""Puts described instances on record: a batch in one transaction, and memory changes only after the ledger did."""

import dataclasses
import hashlib
import os
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from actors.processor.associations import Associations
from actors.processor.comparison import Comparer
from actors.processor.groups import Key, OpenGroup, OpenGroups
from actors.processor.placing import Entry, Held, Placer
from actors.processor.plugin import Answer, Plugin, PluginError
from actors.processor.registry import Registry, Service
from protocol import killpoints
from protocol.clock import Moment
from protocol.ledger import Group, Instance, Ledger, tuples
from protocol.messages import DescribedInstance, StoredInstance
from protocol.spool import Spool
from protocol.states import InstanceState


class Description(msgspec.Struct, frozen=True):
    """What an extractor told of one instance.

    Args:
        instance: what it told.
        lenient: a person released the instance.
        answer: what a job processor that thinks elsewhere said of it.
    """

    instance: DescribedInstance
    lenient: bool = False
    answer: Answer | None = None


@dataclasses.dataclass(slots=True)
class Outcome:
    """What became of a batch.

    Args:
        recorded: identifiers that are on record now.
        ask: what must be described again, since an element that is needed was not read.
        deferred: what must come again when it was compared with what is held.
        unkeyed: what must come again when its job processor was asked for its key.
        quarantined: instances with their reasons.
        gone: how many have no file any more.
    """

    recorded: list[str] = dataclasses.field(default_factory=list)
    ask: list[StoredInstance] = dataclasses.field(default_factory=list)
    deferred: list[tuple[Description, Held]] = dataclasses.field(default_factory=list)
    unkeyed: list[tuple[Description, Plugin]] = dataclasses.field(default_factory=list)
    quarantined: list[tuple[DescribedInstance, str]] = dataclasses.field(default_factory=list)
    gone: int = 0


class Recorder:
    """Records batches of descriptions.

    Args:
        ledger: the ledger.
        spool: the spool.
        registry: the AE titles.
        groups: the open groups.
        associations: is told of each instance.
        comparer: compares datasets.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        spool: Spool,
        registry: Registry,
        groups: OpenGroups,
        associations: Associations,
        comparer: Comparer,
    ) -> None:
        self._ledger = ledger
        self._spool = spool
        self._registry = registry
        self._groups = groups
        self._associations = associations
        self._comparer = comparer

    def record(self, batch: Sequence[Description], now: Moment) -> Outcome:
        """Put instances on record.

        Args:
            batch: descriptions of different instances; those that are not lenient have no row yet.
            now: this moment.

        Raises:
            peewee.PeeweeException: nothing was recorded, or it is not known whether it was.
        """
        outcome = Outcome()
        entries: list[Entry] = []
        placer = Placer(self._groups, self._comparer, now)
        placer.place(self._sort(batch, entries, outcome))
        entries += placer.placed
        if entries:
            killpoints.reach("processor.instances-placed")
            self._commit(entries, placer.changed, placer.superseded)
            killpoints.reach("processor.instances-recorded")
            self._remember(entries, placer.changed, outcome)
        answers = {each.instance.identifier: each.answer for each in batch} if placer.comparisons else {}
        outcome.deferred = [
            (Description(entry.instance, entry.before is not None, answers[entry.instance.identifier]), held)
            for entry, held in placer.comparisons
        ]
        return outcome

    def _sort(
        self, batch: Iterable[Description], entries: list[Entry], outcome: Outcome
    ) -> dict[Key, tuple[Service, list[Entry]]]:
        """Find each instance's group key; what cannot have one becomes an entry without a group at once."""
        states = self._states([each.instance.identifier for each in batch if each.lenient])
        keyed: dict[Key, tuple[Service, list[Entry]]] = {}
        for description in batch:
            instance = self._titled(_without_nul(description.instance))
            entry = Entry(instance, before=states.get(instance.identifier))
            if description.lenient and entry.before is not InstanceState.QUARANTINED:
                outcome.gone += 1  # it has left quarantine already
            elif not os.path.exists(self._spool.instance_path(instance.identifier)):
                outcome.gone += 1
            else:
                try:
                    service, key = self._key(instance, description)
                except _NotReadError:
                    outcome.ask.append(StoredInstance(instance.identifier, instance.stored))
                except _NotAskedError as error:
                    outcome.unkeyed.append((description, error.plugin))
                except (PluginError, _CannotGroupError) as error:
                    entry.reason = str(error)
                    entries.append(entry)
                    outcome.quarantined.append((instance, entry.reason))
                else:
                    keyed.setdefault((instance.called_ae_title, key), (service, []))[1].append(entry)
        return keyed

    def _titled(self, instance: DescribedInstance) -> DescribedInstance:
        """With the AE title of its association, when the extractor could not tell it."""
        if instance.called_ae_title:
            return instance
        title = self._associations.ae_title(instance.identifier) or ""
        return msgspec.structs.replace(instance, called_ae_title=title)

    def _states(self, identifiers: list[str]) -> dict[str, InstanceState]:
        query = Instance.select(Instance.identifier, Instance.state).where(Instance.identifier.in_(identifiers))
        return {identifier: InstanceState(state) for identifier, state in tuples(query)} if identifiers else {}

    def _key(self, instance: DescribedInstance, description: Description) -> tuple[Service, str]:
        """The service and the group key of an instance.

        Raises:
            _NotReadError: an element that decides about it was not read.
            _NotAskedError: its job processor must be asked first.
            _CannotGroupError, PluginError: it has no group; the text is the reason.
        """
        if instance.problem:
            raise _CannotGroupError(instance.problem)
        service = self._registry.service(instance.called_ae_title)
        if service is None:
            raise _CannotGroupError("its called AE title is not configured: create it, and release the instance")
        plugin = service.plugin
        if plugin is None:
            raise _CannotGroupError(service.problem)
        tags = plugin.tags
        if tags is None:
            raise _NotAskedError(plugin)
        if not description.lenient:
            for tag in tags:  # a generator would cost more than the look
                if tag not in instance.attributes:
                    raise _NotReadError
        key = plugin.group_key(instance, description.answer)
        if key is None:
            raise _NotAskedError(plugin)
        if not key and description.lenient:
            key = instance.sop_instance_uid or instance.identifier
        if not key:
            elements = ", ".join(f"{tag[:4]},{tag[4:]}" for tag in tags)
            raise _CannotGroupError(f"no value in grouping element {elements}")
        return service, _bounded(key)

    def _commit(self, entries: Sequence[Entry], groups: Sequence[OpenGroup], superseded: Sequence[str]) -> None:
        with self._ledger.transaction():
            if groups:
                Group.insert_many([group.row() for group in groups], fields=OpenGroups.COLUMNS).on_conflict(
                    conflict_target=[Group.group_id],
                    preserve=[Group.instances, Group.last_wall_ns, Group.last_boot_ns, Group.boot],
                ).execute()
            self._ledger.insert_rows(Instance, [_row(entry) for entry in entries if entry.before is None])
            for entry in entries:
                if entry.before is not None:
                    values = dict(zip(_COLUMNS, _row(entry), strict=True)) | {"attributes": entry.instance.attributes}
                    Instance.update(values).where(Instance.identifier == entry.instance.identifier).execute()
            if superseded:
                Instance.update(state=InstanceState.SUPERSEDED).where(Instance.identifier.in_(superseded)).execute()

    def _remember(self, entries: Sequence[Entry], groups: Sequence[OpenGroup], outcome: Outcome) -> None:
        for group in groups:
            fresh = self._groups.by_id(group.group_id) is None
            self._groups.put(group)
            if fresh:
                self._groups.look_at(group, group.last_at)
        for entry in entries:
            instance = entry.instance
            outcome.recorded.append(instance.identifier)
            self._associations.note(instance.identifier, instance.called_ae_title, entry.group_id)
            self._comparer.forget(instance.identifier)
            joined = self._groups.by_id(entry.group_id) if entry.group_id else None
            if joined is not None:
                joined.held.add(hash(instance.sop_instance_uid))


class _CannotGroupError(Exception):
    """An instance has no group; the text is the reason."""


class _NotReadError(Exception):
    """An element that the job processor needs was not read."""


class _NotAskedError(Exception):
    """A job processor that thinks elsewhere has not said what it groups an instance by."""

    def __init__(self, plugin: Plugin) -> None:
        super().__init__()
        self.plugin = plugin


_LONGEST_KEY = 256
_COLUMNS = tuple(Instance._meta.sorted_field_names)


def _row(entry: Entry) -> tuple[Any, ...]:
    """An instance's row, all columns in their order, as the database takes them."""
    instance = entry.instance
    return (
        instance.identifier,
        entry.group_id,
        entry.state.value,
        entry.reason,
        instance.called_ae_title,
        instance.calling_ae_title,
        instance.host,
        instance.sop_class_uid,
        instance.sop_instance_uid,
        instance.transfer_syntax_uid,
        instance.study_uid,
        instance.series_uid,
        instance.patient_id,
        msgspec.json.encode(instance.attributes).decode(),
        instance.size,
        instance.dataset_offset,
        instance.stored.wall_ns,
        instance.stored.boot_ns,
        instance.stored.boot,
    )


def _bounded(key: str) -> str:
    """A group key that fits into an index of any database, and is different when the key is."""
    key = key.replace("\0", "")
    if len(key) <= _LONGEST_KEY:
        return key
    return f"{key[:_LONGEST_KEY]}#{hashlib.blake2b(key.encode(), digest_size=16).hexdigest()}"


def _without_nul(instance: DescribedInstance) -> DescribedInstance:
    """PostgreSQL has no NUL in text, and no element of DICOM that is kept here may have one."""
    texts = (instance.patient_id, instance.study_uid, instance.series_uid, instance.sop_instance_uid)
    if "\0" not in "".join(texts):
        return instance
    return msgspec.structs.replace(
        instance,
        patient_id=instance.patient_id.replace("\0", ""),
        study_uid=instance.study_uid.replace("\0", ""),
        series_uid=instance.series_uid.replace("\0", ""),
        sop_instance_uid=instance.sop_instance_uid.replace("\0", ""),
    )
