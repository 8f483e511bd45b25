"""What is wrong with a machine, tried on this one."""

import importlib.util
import os
import socket
import sqlite3

import pytest

from protocol.config import check_environment, environment_warnings
from protocol.config import environment as module


@pytest.fixture
def settings_of(configure, tmp_path):
    """Settings that suit this machine, but for what is given."""

    def make(**sets: object):
        with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
            ports = one.getsockname()[1], other.getsockname()[1]
        suiting = {
            "DicomAdapter.dicom.scp.port": ports[0],
            "DicomAdapter.api.port": ports[1],
            "DicomAdapter.storage.temporary": tmp_path / "spool/deep",
            "DicomAdapter.storage.reserveSpaceGB": 0,
            "DicomAdapter.runtimeDirectory": "/tmp/run",
        } | sets
        return configure(
            sets=tuple(f"{path}={value}" for path, value in suiting.items()), STATE_DIRECTORY=str(tmp_path)
        ).settings

    return make


def test_nothing_is_wrong(settings_of, tmp_path, monkeypatch):
    """A machine that suits has no problems, and is left as it was."""
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 51, 3))
    settings = settings_of()
    assert check_environment(settings) == []
    assert environment_warnings(settings) == []
    assert [file.name for file in tmp_path.iterdir()] == ["appsettings.json"]


def test_port_taken(settings_of):
    """A port on which somebody listens is named, unless it is we ourselves."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = settings_of(
            **{"DicomAdapter.dicom.scp.port": taken.getsockname()[1], "DicomAdapter.dicom.scp.bind": "127.0.0.1"}
        )
        (problem,) = check_environment(settings)
        assert problem.startswith("DicomAdapter.dicom.scp.port: cannot listen on 127.0.0.1 port ")
        assert "Address already in use: stop what listens there" in problem
        assert check_environment(settings, listening=True) == []


def test_foreign_address(settings_of):
    """An address of another machine is named."""
    (problem,) = check_environment(settings_of(**{"DicomAdapter.dicom.scp.bind": "192.0.2.1"}))
    assert "Cannot assign requested address: choose an address of this machine" in problem


def test_unwritable(settings_of, tmp_path):
    """A path below a file, and one on a file system that takes nothing, are named."""
    (tmp_path / "file").touch()
    settings = settings_of(
        **{
            "DicomAdapter.storage.temporary": tmp_path / "file/spool",
            "DicomAdapter.runtimeDirectory": "/proc/run",
            "ConnectionStrings.DicomAdapterDatabase": f"Data Source={tmp_path}",
        }
    )
    spool, runtime, ledger = check_environment(settings)
    assert spool.startswith(f"DicomAdapter.storage.temporary: {tmp_path}/file/spool cannot be written: Not a directory")
    assert runtime.startswith("DicomAdapter.runtimeDirectory: /proc/run cannot be written: ")
    assert ledger.startswith(
        f"ConnectionStrings.DicomAdapterDatabase: {tmp_path} is no file that can be read and written"
    )


def test_runtime_directory_too_long(settings_of):
    """Sockets in it would not fit into an address (unix(7))."""
    (problem,) = check_environment(settings_of(**{"DicomAdapter.runtimeDirectory": "/tmp/" + "a" * 63}))
    assert "is too long for the sockets in it: allowed are 67 bytes" in problem


def test_shared_file_system(settings_of, tmp_path, monkeypatch):
    """A ledger on NFS is refused, by the mount that really holds it."""
    mounts = tmp_path / "mountinfo"
    place = str(tmp_path).replace("_", r"\137")
    rows = ("/ / rw - ext4 /dev/a rw", f"/ {place} rw shared:1 - nfs4 h:/x rw", f"/ {place}/spool rw - xfs x rw")
    mounts.write_text("".join(f"1 1 8:1 {row}\n" for row in rows))
    monkeypatch.setattr(module, "_MOUNTS", mounts)
    (problem,) = check_environment(settings_of())
    assert problem.endswith(
        f"{tmp_path}/dicomadapter.db is on nfs4, where SQLite's WAL loses data: use a local disk, or PostgreSQL"
    )


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "No such file or directory"), ("é", "not ASCII"), ("\n", "is empty")]
)
def test_token_file(settings_of, tmp_path, content, reason):
    """A token file that gives no token is named."""
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)
    (problem,) = check_environment(settings_of(**{"DicomAdapter.api.tokenFile": file}))
    assert reason in problem


def test_what_clara_platform_needs(settings_of, tmp_path):
    """A file of TLS that is not there is named."""
    path = "DicomAdapter.services.platform"
    sets = {f"{path}.endpoint": "clara:1", f"{path}.tls.enabled": True, f"{path}.tls.caFile": tmp_path / "ca.pem"}
    (problem,) = check_environment(settings_of(**sets))
    assert problem.startswith(f"{path}.tls.caFile: {tmp_path}/ca.pem cannot be read")
    (tmp_path / "ca.pem").write_text("-")
    assert check_environment(settings_of(**sets)) == []


def test_quota_larger_than_the_file_system(settings_of):
    """Quotas that cannot be reached, and a reserve that is not free, are warned of."""
    settings = settings_of(
        **{
            "DicomAdapter.storage.volumeSize": "1E",
            "DicomAdapter.database.volumeSize": "1E",
            "DicomAdapter.storage.reserveSpaceGB": 900_000,
        }
    )
    spool, ledger, reserve, *_ = environment_warnings(settings)
    assert spool.startswith("DicomAdapter.storage.volumeSize: 1000000000000000000 bytes are more than the ")
    assert ledger.startswith("DicomAdapter.database.volumeSize: 1000000000000000000 bytes are more than the ")
    assert "GB free, less than the reserve: nothing is taken in until there is more" in reserve


@pytest.mark.parametrize(
    ("version", "faulty"),
    [
        ((3, 40, 1), True),
        ((3, 44, 6), False),
        ((3, 45, 0), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 53, 0), False),
    ],
)
def test_sqlite_version(settings_of, monkeypatch, version, faulty):
    """Versions with the WAL-reset fault are warned of, their mended ones not; PostgreSQL does not care."""
    monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
    assert any("WAL" in warning for warning in environment_warnings(settings_of())) == faulty
    server = settings_of(**{"ConnectionStrings.DicomAdapterDatabase": "postgresql://u@h/d"})
    assert environment_warnings(server) == []
    assert os.path.isabs(server.runtime_directory)


def test_a_driver_that_is_missing(settings_of, monkeypatch):
    """PostgreSQL wants one, SQLite none."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "psycopg" else find(name))
    assert check_environment(settings_of()) == []
    (problem,) = check_environment(settings_of(**{"ConnectionStrings.DicomAdapterDatabase": "postgresql://u@h/d"}))
    assert "psycopg is not installed: install it into this environment: pip install" in problem
