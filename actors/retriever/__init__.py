"""Retrieval: pulls what inference requests name from DICOMweb, FHIR and DIMSE sources, and hands it to their jobs."""
