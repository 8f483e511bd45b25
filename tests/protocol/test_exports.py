"""What `--export` may say, and how credentials in it are kept and shown."""

from pathlib import Path

import pytest

from protocol.exports import DicomWebExport, is_dicomweb, read_dicomweb, seal, shown, unseal, url_of
from protocol.vault import Vault


@pytest.mark.parametrize(
    ("written", "export"),
    [
        ("dicomweb:http://h/dicom-web/", DicomWebExport(url="http://h/dicom-web")),
        ("DICOMweb:https://h:8443", DicomWebExport(url="https://h:8443")),
        ("https://u:p@h/x", DicomWebExport(url="https://h/x", auth_type="Basic", auth_id="u:p")),
        ("https://u%40x:p%3A@h/x", DicomWebExport(url="https://h/x", auth_type="Basic", auth_id="u@x:p:")),
        ("https://:token@[::1]:80/x", DicomWebExport(url="https://[::1]:80/x", auth_type="Bearer", auth_id="token")),
    ],
)
def test_read(written: str, export: DicomWebExport) -> None:
    assert read_dicomweb(written) == export
    assert repr(export) == f"<{export.url} {export.auth_type}>"


@pytest.mark.parametrize(
    "written", ["dicomweb:", "dicomweb:ftp://h", "http://", "http://h:x/", "http://h/?q", "http://h /"]
)
def test_wrong(written: str) -> None:
    with pytest.raises(ValueError, match="URL"):
        read_dicomweb(written)


def test_kept_and_shown(tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    export = read_dicomweb("dicomweb:https://u:geheim@h/x")
    kept = seal(export, vault)
    assert "geheim" not in kept
    assert unseal(kept, vault) == export
    assert url_of(kept) == "https://h/x"
    assert shown(kept) == "dicomweb:https://***@h/x"
    open_to_all = seal(DicomWebExport(url="https://h/x"), vault)
    assert shown(open_to_all) == open_to_all == "dicomweb:https://h/x"
    assert is_dicomweb(kept)
    assert shown("MYPACS") == "MYPACS"
    assert not is_dicomweb("MYPACS")
