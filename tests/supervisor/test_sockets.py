"""Listening sockets: what cannot be opened is explained; systemd's are taken when they fit."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from protocol.errors import ConfigurationError
from supervisor.sockets import open_all
from tests.peers import free_port

PROGRAM = """
import os, sys
from pathlib import Path
os.dup2(int(sys.argv[4]), 3)
os.environ["LISTEN_PID"] = str(os.getpid())
from protocol.config import load
from supervisor.sockets import Listeners
from protocol.errors import ConfigurationError
sets = [f"DicomAdapter.dicom.scp.port={sys.argv[2]}", f"DicomAdapter.api.port={sys.argv[3]}", *sys.argv[5:]]
try:
    listeners = Listeners(load(Path(sys.argv[1]), None, sets, {}).settings)
except ConfigurationError as error:
    print(error)
else:
    print(listeners.of("receiver"), listeners.of("api") != (), listeners.of("processor"))
"""


def test_a_taken_port_is_named_with_the_setting() -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)), pytest.raises(ConfigurationError, match=f"port {port} .* is taken"):
        open_all(["127.0.0.1"], port, "DicomAdapter.dicom.scp.port")


def test_an_address_that_is_not_ours_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"192\.0\.2\.1"):
        open_all(["192.0.2.1"], free_port(), "DicomAdapter.dicom.scp.port")


def test_several_addresses_share_a_port() -> None:
    port = free_port()
    opened = open_all(["127.0.0.1", "127.0.0.2"], port, "DicomAdapter.dicom.scp.port")
    assert [one.getsockname() for one in opened] == [("127.0.0.1", port), ("127.0.0.2", port)]
    for one in opened:
        one.close()


def with_inherited(tmp_path: Path, listener: socket.socket, dicom_port: int, *sets: str) -> str:
    """What a process prints that was started with the listener as descriptor 3, as systemd does."""
    (tmp_path / "appsettings.json").write_text("{}")
    # Never as descriptor 3 of this process: a worker of pytest-xdist reads its orders from there.
    inherited, ports = listener.fileno(), (dicom_port, free_port())
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path / "appsettings.json", *map(str, (*ports, inherited)), *sets],
        pass_fds=(inherited,),
        env={**os.environ, "LISTEN_FDS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_systemds_socket_is_used_when_its_port_is_the_configured_one(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert with_inherited(tmp_path, listener, listener.getsockname()[1]) == "(3,) True ()"


def test_a_socket_of_another_port_is_refused_with_a_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        told = with_inherited(tmp_path, listener, free_port())
        assert f"systemd opened port {listener.getsockname()[1]}" in told


def test_a_socket_that_is_open_wider_than_configured_is_refused(tmp_path: Path) -> None:
    bind = "DicomAdapter.dicom.scp.bind=127.0.0.1"
    with socket.create_server(("0.0.0.0", 0)) as listener:
        told = with_inherited(tmp_path, listener, listener.getsockname()[1], bind)
        assert told.startswith("systemd opened 0.0.0.0, but DicomAdapter.dicom.scp.bind has 127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert with_inherited(tmp_path, listener, listener.getsockname()[1], bind) == "(3,) True ()"
