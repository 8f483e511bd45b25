"""One round of a retrieval: everything that a request wants and that is not there yet is looked for at its sources.

It runs in a thread of its own.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar
from urllib.parse import urlsplit

from actors.retriever.outcome import Outcome
from actors.retriever.sources.base import AwayError, DeniedError, DicomSource, PausedError, StoppedError
from actors.retriever.sources.fhir import Fhir, check_resource
from actors.retriever.stock import Stock
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
from protocol.spool import clean_component

_UIDS_AT_ONCE = 100
_MOST_PROBLEMS = 20

Found = TypeVar("Found")


class Round:
    """A round.

    Args:
        order: what is wanted, and from where.
        stock: what is there, and where more goes.
        open_dicom: opens a DICOM source.
    """

    def __init__(self, *, order: Order, stock: Stock, open_dicom: Callable[[Source], DicomSource]) -> None:
        self._order = order
        self._stock = stock
        self._open_dicom = open_dicom
        self._resource_names = resource_names(order.wanted)
        self._opened: dict[int, DicomSource | Fhir] = {}
        self._away: set[int] = set()
        self._problems: dict[str, None] = {}
        stock.left_out = lambda reason: self._problem(stock.source, reason)

    def run(self) -> Outcome:
        """Do it.

        Raises:
            peewee.PeeweeException: the ledger does not answer.
        """
        missing: list[str] = []
        broken_off = ""
        try:
            self._stock.open(self._resource_names.values())
            missing = [_words(wanted) for wanted in self._order.wanted if not self._obtain(wanted)]
            self._stock.flush()
        except (PausedError, StoppedError, StorageError) as error:
            broken_off = str(error)
        except OSError as error:
            broken_off = f"the spool cannot be used: {error.strerror}"
        finally:
            for source in self._opened.values():
                source.close()
            try:
                self._stock.close()
            except StorageError as error:
                broken_off = broken_off or str(error)
        return Outcome(
            missing=tuple(missing),
            problems=tuple(self._problems),
            away=bool(self._away),
            broken_off=broken_off,
        )

    # What is wanted.

    def _obtain(self, wanted: Wanted) -> bool:
        """Whether it is all there now."""
        if isinstance(wanted, FhirResource):
            return self._obtain_resource(wanted)
        if isinstance(wanted, Selection):
            return self._obtain_selection(wanted)
        return self._obtain_studies(wanted)

    def _obtain_resource(self, wanted: FhirResource) -> bool:
        name = self._resource_names[wanted]
        for index, source in enumerate(self._order.sources):
            if self._stock.has_resource(name):
                break
            if isinstance(source, HttpSource) and source.interface == "FHIR" and source.may_retrieve:
                self._ask(index, lambda opened: self._read_resource(opened, wanted, name), None)
        return self._stock.has_resource(name)

    def _read_resource(self, source: DicomSource | Fhir, wanted: FhirResource, name: str) -> None:
        assert isinstance(source, Fhir)
        self._stock.check()
        data = b"".join(source.read(wanted))
        check_resource(data, wanted)
        self._stock.keep_resource(name, data)

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
        if selection.sop_instance_uids and all(map(self._stock.has, selection.sop_instance_uids)):
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
            self._stock.check()
            listed = source.instances_of(selection)
        if listed is None:
            before = self._stock.matched
            source.fetch(selection, self._stock)
            return self._stock.matched > before
        if not listed:
            raise DeniedError(f"it has nothing of {_words(selection)}")
        if not selection.sop_instance_uids and not any(self._stock.has(uid) for _, uid in listed):
            try:
                source.fetch(selection, self._stock)
            except DeniedError as error:
                self._problem(self._stock.source, str(error))
        self._fetch_missing(source, selection, listed)
        left = sum(not self._stock.has(uid) for _, uid in listed)
        if left:
            raise DeniedError(f"{left} of {len(listed)} instances of {_words(selection)} did not come")
        return True

    def _fetch_missing(self, source: DicomSource, selection: Selection, listed: Sequence[tuple[str, str]]) -> None:
        by_series: dict[str, list[str]] = {}
        for series, uid in listed:
            if not self._stock.has(uid):
                by_series.setdefault(series, []).append(uid)
        for series, uids in by_series.items():
            for start in range(0, len(uids), _UIDS_AT_ONCE):
                some = tuple(uids[start : start + _UIDS_AT_ONCE])
                source.fetch(
                    Selection(study_uid=selection.study_uid, series_uid=series, sop_instance_uids=some), self._stock
                )

    # Sources.

    def _dicom_sources(self) -> list[tuple[int, Source]]:
        sources = enumerate(self._order.sources)
        return [(at, each) for at, each in sources if isinstance(each, DimseSource) or each.interface == "DICOMweb"]

    def _ask(self, index: int, work: "Callable[[DicomSource | Fhir], Found]", otherwise: Found) -> Found:
        """Have a source do something; one that could not be reached is not asked again in this round."""
        if index in self._away:
            return otherwise
        self._stock.source = index
        before = self._stock.kept
        try:
            return work(self._open(index))
        except AwayError as error:
            # One that answers and breaks off without having brought anything would do so for ever.
            if not error.reached or self._stock.kept > before:
                self._away.add(index)
            self._problem(index, str(error))
        except MultipartError as error:
            if self._stock.kept > before:
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
