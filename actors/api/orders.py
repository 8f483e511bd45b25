"""Reads the body of an inference request (ACR DSI Model API, extended) into an order; tells every error at once.

Names are read in any case, unknown ones ignored; numbers may be text, and words of a choice may be in any case, as the
original's documented examples have them.
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterator
from typing import TypeVar
from urllib.parse import urlsplit

from actors.api.problems import InvalidError
from actors.api.validation import Body, host, text, uid
from protocol.config.kinds import Kind, Refused, ae_title, as_text, choice, matching, type_name, whole
from protocol.inference import (
    NORMAL,
    AccessionStudies,
    Credentials,
    DimseSource,
    FhirResource,
    HttpSource,
    Order,
    Output,
    PatientStudies,
    Selection,
    Source,
    Wanted,
)

UNPROCESSABLE = 422
_MOST_ITEMS = 10_000
_TYPES = ("DICOM_UID", "DICOM_PATIENT_ID", "ACCESSION_NUMBER", "FHIR_RESOURCE")
_QUERY, _RETRIEVE, _WADO, _STORE = "QUERY", "RETRIEVE", "WADO Retrieve", "STORE"

T = TypeVar("T")


def read_order(data: bytes) -> Order:
    """The order that a body describes.

    Raises:
        ProblemError: 400, it is no JSON.
        InvalidError: 422, it is not valid; every error is told.
    """
    try:
        body = Body(data)
        order = _order(body)
        body.done()
    except InvalidError as error:
        raise InvalidError(error.problem.errors, UNPROCESSABLE) from None
    return order


def _order(body: Body) -> Order:
    transaction_id = body.required("transactionID", text(256, "an identifier"), "")
    priority = body.read("priority", whole(0, 255), NORMAL)
    wanted = tuple(_metadata(body))
    algorithms: list[tuple[str, str]] = []
    sources: list[Source] = []
    inputs = list(_objects(body, "inputResources", required=True))
    for resource in inputs:
        _input(resource, algorithms, sources)
    if inputs and len(algorithms) != 1:
        found = "none" if not algorithms else f"{len(algorithms)} of them"
        body.errors.append(f"inputResources must have one Algorithm, and have {found}")
    if inputs and len(algorithms) == len(inputs):
        body.errors.append("inputResources have no source: add a DICOMweb, FHIR or DIMSE interface")
    elif inputs and not body.errors:
        _check_sources(body, wanted, sources)
    outputs = tuple(_output(resource) for resource in _objects(body, "outputResources"))
    name, pipeline_id = algorithms[0] if algorithms else ("", "")
    return Order(
        transaction_id=transaction_id,
        priority=priority,
        algorithm=name,
        pipeline_id=pipeline_id,
        wanted=tuple(dict.fromkeys(wanted)),
        sources=tuple(sources),
        outputs=tuple(each for each in outputs if each is not None),
    )


def _check_sources(body: Body, wanted: tuple[Wanted, ...], sources: list[Source]) -> None:
    """Each thing that is wanted needs a source of its kind that may be asked for it."""
    of_dicom = [source for source in sources if isinstance(source, DimseSource) or source.interface == "DICOMweb"]
    if any(isinstance(each, FhirResource) for each in wanted) and len(of_dicom) == len(sources):
        body.errors.append("inputResources have no FHIR interface, which FHIR_RESOURCE needs")
    if not all(isinstance(each, FhirResource) for each in wanted):
        if not any(source.may_retrieve for source in of_dicom):
            body.errors.append("inputResources have no DICOMweb or DIMSE interface with the operation RETRIEVE")
        searched = any(isinstance(each, PatientStudies | AccessionStudies) for each in wanted)
        if searched and of_dicom and not any(source.may_query for source in of_dicom):
            body.errors.append("inputResources have no interface with the operation QUERY, which a search needs")


# What is wanted.


def _metadata(body: Body) -> Iterator[Wanted]:
    metadata = body.inner("inputMetadata", required=True)
    if metadata is None:
        return
    details = metadata.inner("details")
    inputs = list(_objects(metadata, "inputs"))
    if details is None and not inputs and metadata.is_sound:
        metadata.errors.append("inputMetadata has neither details nor inputs: say what is to be retrieved")
    for each in ([details] if details is not None else []) + inputs:
        yield from _details(each)


def _details(details: Body) -> Iterator[Wanted]:
    kind = details.required("type", choice(*_TYPES), "")
    if kind == "DICOM_UID":
        for study in _objects(details, "studies", required=True):
            yield from _study(study)
    elif kind == "DICOM_PATIENT_ID":
        yield PatientStudies(patient_id=details.required("PatientID", _identifier("a Patient ID"), ""))
    elif kind == "ACCESSION_NUMBER":
        for number in _texts(details, "accessionNumber", _identifier("an accession number")):
            yield AccessionStudies(accession_number=number)
    elif kind == "FHIR_RESOURCE":
        form = details.read("fhirFormat", choice("Json", "Xml"), "Json").lower()
        release = details.read("fhirVersion", choice("R1", "R2", "R3", "R4"), "R3")
        for resource in _objects(details, "resources", required=True):
            yield FhirResource(
                resource_type=resource.required("resourceType", _RESOURCE_TYPE, ""),
                resource_id=resource.required("id", _RESOURCE_ID, ""),
                form=form,
                release=release,
            )


def _study(study: Body) -> Iterator[Selection]:
    study_uid = study.required("StudyInstanceUID", uid(), "")
    series = list(_objects(study, "series"))
    if not series:
        yield Selection(study_uid=study_uid)
    for each in series:
        series_uid = each.required("SeriesInstanceUID", uid(), "")
        uids: list[str] = []
        instances = list(_objects(each, "instances", single=True))
        for instance in instances:
            uids += _texts(instance, "SOPInstanceUID", uid())
        yield Selection(study_uid=study_uid, series_uid=series_uid, sop_instance_uids=tuple(dict.fromkeys(uids)))


# Sources and destinations.


def _input(resource: Body, algorithms: list[tuple[str, str]], sources: list[Source]) -> None:
    interface = resource.required("interface", choice("Algorithm", "DICOMweb", "FHIR", "DIMSE"), "")
    connection = resource.inner("connectionDetails", required=True)
    if interface == "Algorithm":
        # One that is wrong counts as one, so that its own errors are all that is told.
        algorithms.append(("", "") if connection is None else _algorithm(connection))
    elif connection is not None and interface == "DIMSE":
        sources.append(_dimse(connection))
    elif connection is not None and interface:
        query, retrieve = _operations(connection)
        sources.append(
            HttpSource(
                interface="FHIR" if interface == "FHIR" else "DICOMweb",
                uri=_uri(connection),
                credentials=_credentials(connection),
                may_query=query,
                may_retrieve=retrieve,
            )
        )


def _algorithm(connection: Body) -> tuple[str, str]:
    name = connection.required("name", text(256, "a name"), "")
    return name, connection.required("id", text(256, "the ID of a pipeline"), "")


def _dimse(connection: Body) -> DimseSource:
    query, retrieve = _operations(connection)
    return DimseSource(
        ae_title=connection.required("aeTitle", ae_title(), ""),
        host=connection.required("host", host(), ""),
        port=connection.required("port", whole(1, 65535), 0),
        uses_get=connection.read("retrieveWith", choice("C-MOVE", "C-GET"), "C-MOVE") == "C-GET",
        may_query=query,
        may_retrieve=retrieve,
    )


def _output(resource: Body) -> Output | None:
    interface = resource.required("interface", choice("DICOMweb"), "")
    connection = resource.inner("connectionDetails", required=True)
    if connection is None or not interface:
        return None
    _operations(connection)
    return Output(uri=_uri(connection), credentials=_credentials(connection))


def _operations(connection: Body) -> tuple[bool, bool]:
    """Whether a source may be searched, and retrieved from; both when nothing is said of it."""
    found = set(connection.texts("operations", choice(_QUERY, _RETRIEVE, _WADO, _STORE)))
    return not found or _QUERY in found, not found or bool(found & {_RETRIEVE, _WADO})


def _uri(connection: Body) -> str:
    name = "uri" if connection.value("uri") is not None or connection.value("baseUri") is None else "baseUri"
    if "@" in str(connection.value(name) or ""):
        connection.fail(name, "holds a user: give authType and authID instead")  # without showing its password
        return ""
    return connection.required(name, _URI, "")


def _credentials(connection: Body) -> Credentials:
    auth_type = connection.read("authType", choice("None", "Basic", "Bearer"), "None")
    if auth_type == "None":
        return Credentials()
    name = "authID" if connection.value("authID") is not None or connection.value("apiKey") is None else "apiKey"
    kind = _BASIC if auth_type == "Basic" else _BEARER
    return Credentials(auth_type, connection.secret(name, kind))


# Shapes.


def _objects(body: Body, name: str, *, required: bool = False, single: bool = False) -> Iterator[Body]:
    """The objects of a list; `single` takes one object for a list of it."""
    value = body.value(name)
    if value is None or value == []:
        if required:
            body.fail(name, "is missing" if value is None else "is empty")
        return
    if isinstance(value, dict) and single:
        value = [value]
    if not isinstance(value, list):
        body.fail(name, f"is {type_name(value)}, not a list of objects")
    elif len(value) > _MOST_ITEMS:
        body.fail(name, f"has {len(value)} items: at most {_MOST_ITEMS}")
    else:
        for place, each in enumerate(value):
            found = body.within(f"{name}[{place}]", each)
            if found is not None:
                yield found


def _texts(body: Body, name: str, item: Kind) -> tuple[str, ...]:
    """A list of texts that must not be empty; a single text is one too."""
    value = body.value(name)
    if isinstance(value, list) and value:
        return body.texts(name, item)
    if value is None or value == []:
        body.fail(name, "is missing" if value is None else "is empty")
        return ()
    return (body.required(name, item, ""),)


# Kinds.


def _refusing(is_right: Callable[[str], bool], reason: str, allowed: str) -> Kind:
    def parse(value: object) -> str:
        found = as_text(value)
        if not is_right(found):
            raise Refused(reason)
        return found

    return Kind(allowed, parse)


def _identifier(what: str) -> Kind:
    """An identifier to be searched for; a wildcard (PS3.4 §C.2.2.2.4) would find what belongs to others."""
    return _refusing(
        lambda found: len(found) <= 64 and not set(found) & set("*?\\"),
        "is too long, or holds a wildcard",
        f"{what} of 1 to 64 characters without * ? and backslash",
    )


def _is_base_uri(found: str) -> bool:
    try:
        parts = urlsplit(found)
        port = parts.port
    except ValueError:
        return False
    sound = parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0
    plain = not (parts.query or parts.fragment or parts.username or parts.password)
    return sound and plain and found.isascii() and not re.search(r"[\s<>\"{}|\\^`]", found)


def _is_basic(found: str) -> bool:
    try:
        user, colon, _ = base64.b64decode(found, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return False
    return bool(user and colon)


def _base_uri(value: object) -> str:
    found = as_text(value)
    if not _is_base_uri(found):
        raise Refused("is no base of a service")
    return found.rstrip("/")


_URI = Kind("an absolute http or https URI without user, query and fragment", _base_uri)
_BASIC = _refusing(_is_basic, "is not base64 of user:password", "user:password as base64")
_BEARER = matching(r"[A-Za-z0-9._~+/-]{1,8192}=*", "a token of letters, digits and ._~+/-", "cannot be a bearer token")
_RESOURCE_TYPE = matching("[A-Za-z]{1,64}", "a FHIR resource type such as Patient", "is no resource type")
_RESOURCE_ID = matching(
    r"(?!\.{1,2}$)[A-Za-z0-9.-]{1,64}", "a FHIR id: letters, digits, - and .", "is no id of a resource"
)
