"""`/api/inference`: requests that pull their data (ACR DSI Model API, extended), and how far they are."""

from typing import Any

from litestar import Controller, get, post
from litestar.params import FromPath, RawBody

from actors.api.inference import AcceptedRequest, InferenceStatus
from actors.api.openapi import body
from actors.api.routes.common import TheGateway

_REQUEST: dict[str, Any] = {
    "transactionID": "ABCDEF123456",
    "priority": 128,
    "inputMetadata": {
        "details": {
            "type": "DICOM_UID",
            "studies": [
                {
                    "StudyInstanceUID": "1.2.3.4.555.6666.7777",
                    "series": [
                        {
                            "SeriesInstanceUID": "1.2.3.4.55.66.77.88",
                            "instances": [{"SOPInstanceUID": ["1.2.3.4.5.6.7.8.99.1", "1.2.3.4.5.6.7.8.99.2"]}],
                        }
                    ],
                }
            ],
        },
        "inputs": [
            {
                "type": "FHIR_RESOURCE",
                "resources": [{"resourceType": "Patient", "id": "3d2e37f0-c6bf-4479-bba8-3ca86cbb8a58"}],
                "fhirFormat": "Json",
                "fhirVersion": "R4",
            }
        ],
    },
    "inputResources": [
        {
            "interface": "Algorithm",
            "connectionDetails": {"name": "covid", "id": "0f7f3a52-6a0c-4c5c-9a43-6a3ae1d2ab01"},
        },
        {
            "interface": "DICOMweb",
            "connectionDetails": {
                "operations": ["QUERY", "RETRIEVE"],
                "uri": "https://pacs.example/dicom-web",
                "authType": "Basic",
                "authID": "dXNlcjpwYXNzd29yZA==",
            },
        },
        {
            "interface": "DIMSE",
            "connectionDetails": {
                "operations": ["QUERY", "RETRIEVE"],
                "aeTitle": "MYPACS",
                "host": "10.20.30.2",
                "port": 104,
                "retrieveWith": "C-MOVE",
            },
        },
        {"interface": "FHIR", "connectionDetails": {"uri": "https://ehr.example/fhir", "authType": "None"}},
    ],
    "outputResources": [
        {
            "interface": "DICOMweb",
            "connectionDetails": {"operations": ["STORE"], "uri": "https://pacs.example/dicom-web"},
        }
    ],
}
_ABOUT = (
    "inputMetadata says what is retrieved (details, inputs, or both), inputResources from where, in this order, and by "
    "which pipeline (the one Algorithm), outputResources where results go."
)


class InferenceController(Controller):
    """Inference requests."""

    path = "/api/inference"
    tags = ("Inference",)

    @post(status_code=200, sync_to_thread=True, operation_class=body(_REQUEST, about=_ABOUT))
    def submit(self, gateway: TheGateway, body: RawBody) -> AcceptedRequest:
        """Accept a request: its job is created on the platform at once, its data is retrieved afterwards.

        422 tells every error; 409 when the transaction ID belongs to another request (the same request again is
        answered as the first time); 503 when the platform does not answer, and then nothing is kept.
        """
        return gateway.inference.submit(body)

    @get("/status/{identifier:str}", sync_to_thread=True)
    def status(self, gateway: TheGateway, identifier: FromPath[str]) -> InferenceStatus:
        """How far a request is, by its transaction ID or job ID."""
        return gateway.inference.status(identifier)
