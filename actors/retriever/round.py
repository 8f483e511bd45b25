"""One round of a retrieval: everything that a request wants and that is not there yet is looked for at its sources.

A round runs in a thread of its own. What it keeps is told in batches, each after it is durable; what a killed process
has left on disk is found again by the names of the files.
"""

import errno
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec

from actors.retriever.identity import Identity, NotDicomError, identify
from actors.retriever.shelf import INSTANCES, RESOURCES, Shelf, instance_path
from actors.retriever.sources.base import AwayError, DeniedError, DicomSource, PausedError, StoppedError
from actors.retriever.sources.fhir import Fhir, check_resource
from protocol.dicomweb.multipart import MultipartError
from protocol.errors import StorageError
from protocol.inference import (
    AccessionStudies,
    DimseSource,
    FhirResource,
    HttpSource,
    Order,
    PatientStudies,
    Selection,
    Source,
    Wanted,
)
from protocol.ledger import Retrieval, pages
from protocol.spool import INSTANCE_SUFFIX, Part, clean_component, payload_name

_BATCH = 200
_BATCH_SECONDS = 1.0
_UIDS_AT_ONCE = 100
_MOST_PROBLEMS = 20
_NO_SPACE = frozenset((errno.ENOSPC, errno.EDQUOT))

Found = TypeVar("Found")


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is durable; its fields are those of its row, and whether a receiver has counted its bytes."""

    path: str
    name: str
    size: int
    study_uid: str = ""
    series_uid: str = ""
    sop_instance_uid: str = ""
    attributes: dict[str, str] = {}
    source: int = 0
    retrieved_ns: int
    counted: bool = False


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a round ended.

    Args:
        missing: what was wanted and not found, without patient data.
        problems: what sources said.
        away: whether a source could not be reached, so that this was no try.
        broken_off: why it ended before its end, which is no try either.
    """

    missing: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    away: bool = False
    broken_off: str = ""


class Round:
    """A round, and the sink that its sources write to.

    Args:
        order: what is wanted, and from where.
        job_id: of the request's job.
        shelf: where it goes.
        tags: elements that are put on record of each instance.
        open_dicom: opens a DICOM source.
        may_go_on: "" to go on, else why not; asked often.
        has_room: whether new data may come in.
        report: told what is durable.
    """

    def __init__(
        self,
        *,
        order: Order,
        job_id: str,
        shelf: Shelf,
        tags: Sequence[str],
        open_dicom: Callable[[Source], DicomSource],
        stopped: Callable[[], bool],
        has_room: Callable[[], bool],
        report: Callable[[list[Kept]], None],
    ) -> None:
        self._order = order
        self._job_id = job_id
        self._shelf = shelf
        self._tags = tags
        self._open_dicom = open_dicom
        self._stopped = stopped
        self._has_room = has_room
        self._report = report
        self._resource_names = resource_names(order.wanted)
        self._have: set[str] = set()
        self._batch: list[Kept] = []
        self._flushed = time.monotonic()
        self._source = 0
        self._opened: dict[int, DicomSource | Fhir] = {}
        self._kept = 0
        self._away: set[int] = set()
        self._problems: dict[str, None] = {}

    def run(self) -> Outcome:
        """Do it.

        Raises:
            peewee.PeeweeException: the ledger does not answer.
        """
        missing: list[str] = []
        broken_off = ""
        try:
            self._shelf.open()
            self._recover()
            missing = [_words(wanted) for wanted in self._order.wanted if not self._obtain(wanted)]
            self._flush()
        except (PausedError, StoppedError, StorageError) as error:
            broken_off = str(error)
        except OSError as error:
            broken_off = f"the spool cannot be used: {error.strerror}"
        finally:
            self._end()
        return Outcome(
            missing=tuple(missing),
            problems=tuple(self._problems)[:_MOST_PROBLEMS],
            away=bool(self._away),
            broken_off=broken_off,
        )

    def _end(self) -> None:
        for source in self._opened.values():
            source.close()
        try:
            self._flush()
        except StorageError as error:
            self._note(str(error))
        self._shelf.close()

    # What is there already.

    def _recover(self) -> None:
        """Find what is on disk, and put on record what a killed process could not."""
        on_record: set[str] = set()
        for page in pages(
            Retrieval.select(Retrieval.retrieval_id, Retrieval.path).where(Retrieval.job_id == self._job_id),
            Retrieval.retrieval_id,
        ):
            on_record |= {row.path for row in page}
        names = {f"{RESOURCES}/{name}" for name in self._resource_names.values()}
        for path, size in self._shelf.files().items():
            if path in on_record:
                self._have.add(path)
            elif path.startswith(INSTANCES):
                try:
                    self._enter(identify(self._shelf.home / path, self._tags), size)
                except NotDicomError:
                    os.unlink(self._shelf.home / path)
            elif path in names:
                self._put(Kept(path=path, name=path, size=size, retrieved_ns=time.time_ns()))

    # What is wanted.

    def _obtain(self, wanted: Wanted) -> bool:
        """Whether it is all there now."""
        if isinstance(wanted, FhirResource):
            return self._obtain_resource(wanted)
        if isinstance(wanted, Selection):
            return self._obtain_selection(wanted)
        return self._obtain_studies(wanted)

    def _obtain_resource(self, wanted: FhirResource) -> bool:
        path = f"{RESOURCES}/{self._resource_names[wanted]}"
        if path in self._have:
            return True
        for index, source in enumerate(self._order.sources):
            if isinstance(source, HttpSource) and source.interface == "FHIR" and source.may_retrieve:
                self._ask(index, lambda opened: self._read_resource(opened, wanted, path), None)
                if path in self._have:
                    return True
        return False

    def _read_resource(self, source: DicomSource | Fhir, wanted: FhirResource, path: str) -> None:
        assert isinstance(source, Fhir)
        self.check()
        data = b"".join(source.read(wanted))
        check_resource(data, wanted)
        part = self._write([data])
        size = self._shelf.keep(part, path)
        self._put(Kept(path=path, name=path, size=size, source=self._source, retrieved_ns=time.time_ns()))

    def _obtain_studies(self, wanted: PatientStudies | AccessionStudies) -> bool:
        """Search at one source after the other, until one has it and all of that is there."""
        for index, source in self._dicom_sources():
            if not source.may_query:
                continue
            studies = self._ask(index, lambda opened: _dicom(opened).studies_of(wanted), None)
            if studies == []:
                self._problem(index, "it has no such study")
            # Each is asked for, also when one of them is not there.
            obtained = [self._obtain_selection(Selection(study_uid=uid)) for uid in studies or ()]
            if obtained and all(obtained):
                return True
        return False

    def _obtain_selection(self, selection: Selection) -> bool:
        if selection.sop_instance_uids and all(map(self.has, selection.sop_instance_uids)):
            return True
        return any(
            self._ask(index, lambda opened: self._fetch(_dicom(opened), selection), False)
            for index, source in self._dicom_sources()
            if source.may_retrieve
        )

    def _fetch(self, source: DicomSource, selection: Selection) -> bool:
        """Whether a source had all of a selection, and all of that is there."""
        listed: list[tuple[str, str]] | None
        if selection.sop_instance_uids:
            listed = [(selection.series_uid, uid) for uid in selection.sop_instance_uids]
        else:
            self.check()
            listed = source.instances_of(selection)
        if listed is None:
            before = self._kept
            source.fetch(selection, self)
            return self._kept > before
        if not listed:
            raise DeniedError(f"it has nothing of {_words(selection)}")
        if not selection.sop_instance_uids and not any(self.has(uid) for _, uid in listed):
            try:
                source.fetch(selection, self)
            except DeniedError as error:
                self._problem(self._source, str(error))
        self._fetch_missing(source, selection, listed)
        left = sum(not self.has(uid) for _, uid in listed)
        if left:
            raise DeniedError(f"{left} of {len(listed)} instances of {_words(selection)} did not come")
        return True

    def _fetch_missing(self, source: DicomSource, selection: Selection, listed: Sequence[tuple[str, str]]) -> None:
        by_series: dict[str, list[str]] = {}
        for series, uid in listed:
            if not self.has(uid):
                by_series.setdefault(series, []).append(uid)
        for series, uids in by_series.items():
            for start in range(0, len(uids), _UIDS_AT_ONCE):
                some = tuple(uids[start : start + _UIDS_AT_ONCE])
                source.fetch(Selection(study_uid=selection.study_uid, series_uid=series, sop_instance_uids=some), self)

    # Sources.

    def _dicom_sources(self) -> list[tuple[int, Source]]:
        sources = enumerate(self._order.sources)
        return [(at, each) for at, each in sources if isinstance(each, DimseSource) or each.interface == "DICOMweb"]

    def _ask(self, index: int, work: "Callable[[DicomSource | Fhir], Found]", otherwise: Found) -> Found:
        """Have a source do something; one that could not be reached is not asked again in this round."""
        if index in self._away:
            return otherwise
        self._source = index
        before = self._kept
        try:
            return work(self._open(index))
        except AwayError as error:
            # One that answers and breaks off without having brought anything would do so for ever.
            if not error.reached or self._kept > before:
                self._away.add(index)
            self._problem(index, str(error))
        except MultipartError as error:
            if self._kept > before:
                self._away.add(index)
            self._problem(index, str(error))
        except DeniedError as error:
            self._problem(index, str(error))
        return otherwise

    def _open(self, index: int) -> DicomSource | Fhir:
        opened = self._opened.get(index)
        if opened is None:
            source = self._order.sources[index]
            of_fhir = isinstance(source, HttpSource) and source.interface == "FHIR"
            opened = Fhir(source) if of_fhir else self._open_dicom(source)  # type: ignore[arg-type] # of_fhir says so
            self._opened[index] = opened
        return opened

    def _problem(self, index: int, what: str) -> None:
        self._note(f"{label(self._order.sources[index])}: {what}")

    def _note(self, what: str) -> None:
        if len(self._problems) < _MOST_PROBLEMS:
            self._problems[what] = None

    # The sink.

    def has(self, sop_instance_uid: str) -> bool:
        """Whether an instance is there already."""
        return instance_path(sop_instance_uid) in self._have

    def check(self) -> None:
        """Look whether to go on."""
        if self._stopped():
            raise StoppedError("the retriever ends, or the request was given up")
        if not self._has_room():
            raise PausedError("intake is paused: there is no space")

    def take(self, chunks: Iterable[bytes], selection: Selection) -> None:
        """Write a DICOM file and keep it, if it is of the selection."""
        self.check()
        part = self._write(chunks)
        try:
            identity = identify(part.path, self._tags)
        except NotDicomError as error:
            self._problem(self._source, f"a part that it sent is left out: {error}")
            part.discard()
            return
        except BaseException:
            part.discard()
            raise
        if not self._wants(identity, selection):
            part.discard()
            return
        self._enter(identity, self._shelf.keep(part, instance_path(identity.sop_instance_uid)))

    def take_file(self, path: Path, selection: Selection, *, counted: bool = False) -> bool:
        """Take over a file that lies in the spool durably."""
        try:
            identity = identify(path, self._tags)
        except NotDicomError as error:
            self._problem(self._source, f"an object that it sent is left out: {error}")
            return False
        if not self._wants(identity, selection):
            return False
        self._enter(identity, self._shelf.adopt(path, instance_path(identity.sop_instance_uid)), counted=counted)
        return True

    def _wants(self, identity: Identity, selection: Selection) -> bool:
        asked_for = (
            identity.study_uid == selection.study_uid
            and selection.series_uid in ("", identity.series_uid)
            and (not selection.sop_instance_uids or identity.sop_instance_uid in selection.sop_instance_uids)
        )
        if not asked_for:
            self._problem(self._source, "it sent an instance that was not asked for, which is left out")
        return asked_for and not self.has(identity.sop_instance_uid)

    def _write(self, chunks: Iterable[bytes]) -> Part:
        """A part with all that came.

        Raises:
            PausedError, StoppedError, StorageError: and whatever `chunks` raises; nothing is left of it.
        """
        try:
            part = self._shelf.open_part()
        except OSError as error:
            raise _storage_error(error) from error
        try:
            for chunk in chunks:
                if self._stopped():
                    raise StoppedError("the retriever ends, or the request was given up")
                _write_all(part.fd, chunk)
        except OSError as error:
            part.discard()
            raise _storage_error(error) from error
        except BaseException:
            part.discard()
            raise
        return part

    def _enter(self, identity: Identity, size: int, *, counted: bool = False) -> None:
        uid = identity.sop_instance_uid
        self._put(
            Kept(
                path=instance_path(uid),
                name=payload_name(identity.patient_id, identity.study_uid, identity.series_uid, uid),
                size=size,
                study_uid=identity.study_uid,
                series_uid=identity.series_uid,
                sop_instance_uid=uid,
                attributes=identity.attributes,
                source=self._source,
                retrieved_ns=time.time_ns(),
                counted=counted,
            )
        )

    def _put(self, kept: Kept) -> None:
        self._have.add(kept.path)
        self._batch.append(kept)
        self._kept += 1
        if len(self._batch) >= _BATCH or time.monotonic() - self._flushed >= _BATCH_SECONDS:
            self._flush()

    def _flush(self) -> None:
        self._flushed = time.monotonic()
        if self._batch:
            self._shelf.sync()
            batch, self._batch = self._batch, []
            self._report(batch)


def _storage_error(error: OSError) -> PausedError | StorageError:
    if error.errno in _NO_SPACE:
        return PausedError("there is no space")
    return StorageError(f"a retrieved file could not be written: {error.strerror}")


def _write_all(fd: int, chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[os.write(fd, rest) :]


def _dicom(source: DicomSource | Fhir) -> DicomSource:
    assert isinstance(source, DicomSource)
    return source


def label(source: Source) -> str:
    """A source in words for people, without credentials."""
    if isinstance(source, DimseSource):
        return f"DIMSE {source.ae_title} at {source.host}:{source.port}"
    return f"{source.interface} at {urlsplit(source.uri).netloc}"


def _words(wanted: Wanted) -> str:
    """What is wanted, without patient data."""
    match wanted:
        case Selection(sop_instance_uids=uids) if uids:
            return f"{len(uids)} instances of series {wanted.series_uid}"
        case Selection(series_uid=uid) if uid:
            return f"series {uid}"
        case Selection():
            return f"study {wanted.study_uid}"
        case PatientStudies():
            return "the studies of a patient"
        case AccessionStudies():
            return "the studies of an accession number"
        case FhirResource():
            return f"a FHIR {wanted.resource_type}"


def resource_names(wanted: Iterable[Wanted]) -> dict[FhirResource, str]:
    """The file name of each FHIR resource, always the same for the same request; equal ones get a number."""
    names: dict[FhirResource, str] = {}
    for each in wanted:
        if isinstance(each, FhirResource) and each not in names:
            stem = f"{clean_component(each.resource_type)}-{clean_component(each.resource_id)}".lower()
            name, number = f"{stem}.{each.form}", 1
            while name in names.values():
                number += 1
                name = f"{stem}-{number}.{each.form}"
            names[each] = name
    return names


def is_instance(path: str) -> bool:
    """Whether a path below a request's directory is an instance's."""
    return path.startswith(f"{INSTANCES}/") and path.endswith(INSTANCE_SUFFIX)
