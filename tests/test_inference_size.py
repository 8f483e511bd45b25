"""A study of 3 GB by WADO-RS: what the retriever holds in memory does not grow with it."""

from pathlib import Path

import pytest

from tests.gateway import Gateway, rss_peak_bytes
from tests.inference import PASSWORD, USER, body, by_study, fill, orthanc_web, submit, wait_retrieved
from tests.peers import orthanc
from tests.samples import make_huge, make_study

_MEGABYTE = 1024 * 1024


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_study_of_3_gb(tmp_path: Path) -> None:
    """One instance of 256 MB, and 5500 of half a megabyte."""
    huge = make_huge(tmp_path / "huge" / "huge.dcm", "PAT-HUGE", 256 * _MEGABYTE)
    many = make_study(tmp_path / "many", "PAT-HUGE", 5500, study_uid=huge.uid)
    with (
        orthanc(tmp_path / "orthanc", users={USER: PASSWORD}) as ports,
        Gateway(tmp_path / "gateway") as gateway,
    ):
        fill(ports["dicom"], huge, many)
        pipeline = gateway.add_pipeline("none", ["/bin/true"])
        (pid,) = gateway.pids("retriever")
        before = rss_peak_bytes(pid)
        submit(gateway, body("HUGE", pipeline, [by_study(huge.uid)], [orthanc_web(ports["http"])]))
        found = wait_retrieved(gateway, "HUGE", 1500.0)
        assert found["dicom"]["status"] == "Success"
        assert found["message"] == ""
        assert gateway.pids("retriever") == [pid]
        size = sum(path.stat().st_size for path in (gateway.spool / "requests").rglob("*.dcm"))
        peak = rss_peak_bytes(pid)
        print(f"{size / 1e9:.2f} GB retrieved; peak {peak / 1e6:.0f} MB, before {before / 1e6:.0f} MB")
        assert size > 3e9
        assert peak < 200e6
