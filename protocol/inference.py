"""What an inference request asks for, once it was found valid: what the API reads, and the retriever works by.

An order holds credentials and patients' identifiers: it travels on the bus, and is kept sealed (`protocol.vault`).
"""

from typing import Literal

import msgspec

NORMAL = 128
IMMEDIATE = 255

HttpInterface = Literal["DICOMweb", "FHIR"]


class Credentials(msgspec.Struct, frozen=True, array_like=True):
    """How a server of others is told who we are; its representation tells nothing.

    Args:
        auth_type: None, Basic or Bearer.
        auth_id: for Basic `user:password` as base64, for Bearer the token.
    """

    auth_type: str = "None"
    auth_id: str = ""

    def __repr__(self) -> str:
        """For tracebacks and logs."""
        return f"<{self.auth_type} credentials>"


class Selection(msgspec.Struct, frozen=True, kw_only=True, tag="DICOM_UID"):
    """A study, a series of it, or some instances of that."""

    study_uid: str
    series_uid: str = ""
    sop_instance_uids: tuple[str, ...] = ()


class PatientStudies(msgspec.Struct, frozen=True, kw_only=True, tag="DICOM_PATIENT_ID"):
    """All studies of a patient."""

    patient_id: str


class AccessionStudies(msgspec.Struct, frozen=True, kw_only=True, tag="ACCESSION_NUMBER"):
    """All studies of an accession number."""

    accession_number: str


class FhirResource(msgspec.Struct, frozen=True, kw_only=True, tag="FHIR_RESOURCE"):
    """A FHIR resource.

    Args:
        resource_type: such as Patient.
        resource_id: its logical ID.
        form: json or xml.
        release: R1 to R4.
    """

    resource_type: str
    resource_id: str
    form: str = "json"
    release: str = "R3"


Wanted = Selection | PatientStudies | AccessionStudies | FhirResource


class HttpSource(msgspec.Struct, frozen=True, kw_only=True, tag="http"):
    """A DICOMweb or FHIR server; `uri` is its base, without a slash at its end."""

    interface: HttpInterface
    uri: str
    credentials: Credentials = Credentials()
    may_query: bool = True
    may_retrieve: bool = True


class DimseSource(msgspec.Struct, frozen=True, kw_only=True, tag="dimse"):
    """An archive that is asked by C-FIND and C-MOVE or C-GET."""

    ae_title: str
    host: str
    port: int
    uses_get: bool = False
    may_query: bool = True
    may_retrieve: bool = True


Source = HttpSource | DimseSource


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """Where results go by STOW-RS."""

    uri: str
    credentials: Credentials = Credentials()


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A valid inference request.

    Args:
        transaction_id: the requester's own identifier.
        priority: 0 to 255.
        algorithm: name of the pipeline, for the job's name.
        pipeline_id: of the pipeline.
        wanted: what is to be retrieved.
        sources: where it is looked for, in this order.
        outputs: where results go.
    """

    transaction_id: str
    priority: int
    algorithm: str
    pipeline_id: str
    wanted: tuple[Wanted, ...]
    sources: tuple[Source, ...]
    outputs: tuple[Output, ...] = ()

    @property
    def job_priority(self) -> str:
        """The priority among the platform's four."""
        if self.priority == IMMEDIATE:
            return "immediate"
        if self.priority == NORMAL:
            return "normal"
        return "lower" if self.priority < NORMAL else "higher"

    def outputs_as_json(self) -> bytes:
        """The outputs as the exporter reads them: a list of uri, authType, authId."""
        outputs = [
            {"uri": each.uri, "authType": each.credentials.auth_type, "authId": each.credentials.auth_id}
            for each in self.outputs
        ]
        return msgspec.json.encode(outputs)
