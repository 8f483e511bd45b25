"""A pipeline's `--export`: where results go, as people write it, as the ledger keeps it, and as it is shown.

written   MYPACS · dicomweb:https://HOST/dicom-web · with `USER:PASSWORD@` (Basic) or `:TOKEN@` (Bearer) before HOST
kept      dicomweb:https://HOST/dicom-web SEALED, the credentials sealed by `protocol.vault`
shown     dicomweb:https://***@HOST/dicom-web
"""

from urllib.parse import unquote, urlsplit, urlunsplit

import msgspec

from protocol.vault import Vault

DICOMWEB = "dicomweb:"
MASK = "***"
_LONGEST = 2048


class DicomWebExport(msgspec.Struct, frozen=True, kw_only=True):
    """A DICOMweb service to which results go; its representation tells no credentials.

    Args:
        url: of the service, without credentials and without a slash at its end.
        auth_type: None, Basic or Bearer.
        auth_id: for Basic `user:password`, for Bearer the token.
    """

    url: str
    auth_type: str = "None"
    auth_id: str = ""

    def __repr__(self) -> str:
        """For tracebacks and logs."""
        return f"<{self.url} {self.auth_type}>"


def is_dicomweb(export: str) -> bool:
    """Whether an export is a DICOMweb service, and no destination's name."""
    return export.lower().startswith(DICOMWEB)


def read_dicomweb(written: str) -> DicomWebExport:
    """Read what a person wrote, with or without `dicomweb:` before the URL.

    Raises:
        ValueError: it has no absolute URL of HTTP; the sentence says so.
    """
    url = written[len(DICOMWEB) :] if is_dicomweb(written) else written
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("has no absolute URL") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError("has no absolute URL")
    if len(url) > _LONGEST or not url.isprintable() or " " in url:
        raise ValueError("has a URL that is too long, or has blanks in it")
    if parts.query or parts.fragment:
        raise ValueError("has a URL with a query or a fragment")
    shown_host = f"[{host}]" if ":" in host else host
    bare = urlunsplit((parts.scheme, f"{shown_host}:{port}" if port else shown_host, parts.path.rstrip("/"), "", ""))
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if parts.username is None or not (user or password):
        return DicomWebExport(url=bare)
    if not user:
        return DicomWebExport(url=bare, auth_type="Bearer", auth_id=password)
    return DicomWebExport(url=bare, auth_type="Basic", auth_id=f"{user}:{password}")


def seal(export: DicomWebExport, vault: Vault) -> str:
    """What the ledger keeps."""
    if export.auth_type == "None":
        return DICOMWEB + export.url
    return f"{DICOMWEB}{export.url} {vault.seal(msgspec.json.encode([export.auth_type, export.auth_id]).decode())}"


def unseal(kept: str, vault: Vault) -> DicomWebExport:
    """What the ledger has kept.

    Raises:
        StorageError: the credentials were sealed with another key.
    """
    url, _, sealed = kept[len(DICOMWEB) :].partition(" ")
    if not sealed:
        return DicomWebExport(url=url)
    auth_type, auth_id = msgspec.json.decode(vault.open(sealed), type=tuple[str, str])
    return DicomWebExport(url=url, auth_type=auth_type, auth_id=auth_id)


def url_of(kept: str) -> str:
    """The URL of a DICOMweb export, without its credentials."""
    return kept[len(DICOMWEB) :].partition(" ")[0]


def shown(kept: str) -> str:
    """An export as people may see it."""
    if not is_dicomweb(kept):
        return kept
    url, _, sealed = kept.partition(" ")
    return url.replace("://", f"://{MASK}@", 1) if sealed else url
