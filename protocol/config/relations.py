"""What only two settings together can have wrong, and what works but may not be meant."""

import ipaddress

from protocol.config.problems import Problem
from protocol.config.settings import Settings


def _overlap(one: str, other: str) -> bool:
    """Return whether two addresses cannot listen on the same port."""
    first, second = ipaddress.ip_address(one), ipaddress.ip_address(other)
    if first.version != second.version:
        return False  # every socket of ours that is IPv6 is that alone
    return first == second or first.is_unspecified or second.is_unspecified


def contradictions(settings: Settings) -> list[Problem]:
    """Return what is wrong between settings that are each allowed."""
    found = []
    api, scp, storage = settings.api, settings.dicom.scp, settings.storage
    if not (ipaddress.ip_address(api.bind).is_loopback or api.token or api.token_file or api.allow_anonymous):
        found.append(
            Problem(
                "DicomAdapter.api.bind",
                f"{api.bind} can be reached from other machines, and nothing says who may use the REST API",
                "set DicomAdapter.api.token or .tokenFile, or .allowAnonymous on purpose, or bind to 127.0.0.1",
            )
        )
    if api.token and api.token_file:
        found.append(
            Problem("DicomAdapter.api.tokenFile", "is given beside DicomAdapter.api.token", "keep one of them")
        )
    if api.port == scp.port and any(_overlap(api.bind, bind) for bind in scp.bind):
        found.append(
            Problem(
                "DicomAdapter.api.port",
                f"{api.port} is the DICOM port too",
                "give the REST API or DICOM another port",
            )
        )
    if storage.quota_bytes is not None and storage.quota_bytes <= storage.reserve_space_gb * 1e9:
        found.append(
            Problem(
                "DicomAdapter.storage.volumeSize",
                f"{storage.quota_bytes} bytes are no more than reserveSpaceGB keeps free, so nothing could be received",
                f"allowed is more than {storage.reserve_space_gb:g} GB, or less reserveSpaceGB",
            )
        )
    return [*found, *_about_tls(settings)]


def _about_tls(settings: Settings) -> list[Problem]:
    """Return what is wrong between the settings of TLS to Clara Platform."""
    found = []
    platform = settings.services.platform
    tls, path = platform.tls, "DicomAdapter.services.platform.tls"
    files = {"caFile": tls.ca_file, "certificateFile": tls.certificate_file, "keyFile": tls.key_file}
    if not tls.enabled and any(files.values()):
        named = " and ".join(name for name, file in files.items() if file)
        found.append(Problem(f"{path}.enabled", f"is false, and {named} is given", "set it to true, or take them away"))
    if tls.enabled and platform.endpoint == "embedded":
        found.append(
            Problem(
                f"{path}.enabled",
                "is true, and jobs run on this machine",
                "set it to false, or DicomAdapter.services.platform.endpoint to Clara Platform's host:port",
            )
        )
    if bool(tls.certificate_file) != bool(tls.key_file):
        missing = "keyFile" if tls.certificate_file else "certificateFile"
        found.append(
            Problem(f"{path}.{missing}", "is not given, and the other one is", "give both of certificate and key")
        )
    return found


def cautions(settings: Settings) -> list[str]:
    """Return one sentence for each setting that gives something up."""
    scp, scu, api = settings.dicom.scp, settings.dicom.scu, settings.api
    platform = settings.services.platform
    plain = platform.endpoint != "embedded" and not platform.tls.enabled
    exposed = api.allow_anonymous and not ipaddress.ip_address(api.bind).is_loopback
    candidates = {
        "DicomAdapter.dicom.scp.logDimseDatasets: patient data will be in the log": scp.log_dimse_datasets,
        "DicomAdapter.dicom.scu.logDimseDatasets: patient data will be in the log": scu.log_dimse_datasets,
        "DicomAdapter.dicom.scu.logDataPDUs: patient data may be in the log": scu.log_data_pdus,
        "DicomAdapter.storage.syncOnStore: a power cut may lose what was answered": not settings.storage.sync_on_store,
        f"DicomAdapter.api.allowAnonymous: whoever reaches {api.bind} may change everything": exposed,
        f"DicomAdapter.services.platform.tls.enabled: payloads go to {platform.endpoint} unencrypted": plain,
    }
    return [sentence for sentence, applies in candidates.items() if applies]
