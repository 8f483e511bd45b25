"""The shipped units, and the gateway under a manager that speaks systemd's protocols and puts on the unit's sandbox."""

import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.trial import Trial
from tests.manager import UNITS, WATCHDOG_SECONDS, ManagedGateway, allowed_system_calls, unit_settings
from tests.peers import free_port

HEARTBEAT_LIMIT_SECONDS = 5.0
needs_analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")


# The units.


def analyze(*words: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["systemd-analyze", *map(str, words)], capture_output=True, text=True, check=False)


@needs_analyze
def test_exposure_is_at_most_2() -> None:
    done = analyze("security", "--offline=yes", "--threshold=20", "--no-pager", UNITS / "dicom-adapter.service")
    assert done.returncode == 0, done.stdout[-300:] + done.stderr


@needs_analyze
@pytest.mark.parametrize("drop_in", ["", "gpu-pipelines.conf.example"])
def test_units_are_clean(tmp_path: Path, drop_in: str) -> None:
    """With a program at the place that ExecStart= names, and every line of the drop-in in force."""
    for name in ("dicom-adapter.service", "dicom-adapter.socket"):
        text = (UNITS / name).read_text()
        (tmp_path / name).write_text(text.replace("/opt/dicom-adapter/current/bin/dicom-adapter", sys.executable))
    if drop_in:
        directory = tmp_path / "dicom-adapter.service.d"
        directory.mkdir()
        text = (UNITS / "dicom-adapter.service.d" / drop_in).read_text()
        (directory / "drop-in.conf").write_text(re.sub(r"^#(?=\w)", "", text, flags=re.MULTILINE))
    done = analyze("verify", "--man=no", tmp_path / "dicom-adapter.service", tmp_path / "dicom-adapter.socket")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(
    shutil.which("systemd-sysusers") is None or os.geteuid() != 0, reason="needs systemd-sysusers, and root"
)
def test_user_and_directories_are_made(tmp_path: Path) -> None:
    (tmp_path / "etc" / "dicom-adapter" / "certificates").mkdir(parents=True)
    (tmp_path / "etc" / "dicom-adapter" / "appsettings.json").write_text("{}")
    for program, options, kind in (("sysusers", (), "sysusers"), ("tmpfiles", ("--create",), "tmpfiles")):
        command = [f"systemd-{program}", f"--root={tmp_path}", *options, UNITS / f"{kind}.d-dicom-adapter.conf"]
        subprocess.run(command, check=True, capture_output=True)
    (line,) = [line for line in (tmp_path / "etc" / "passwd").read_text().splitlines() if "dicom-adapter" in line]
    uid, gid, home, shell = (line.split(":")[place] for place in (2, 3, 5, 6))
    assert (home, shell) == ("/var/lib/dicom-adapter", "/usr/sbin/nologin")
    found = {}
    expected = {
        "payloads": (int(uid), int(gid), 0o750),
        "etc/dicom-adapter": (0, int(gid), 0o750),
        "etc/dicom-adapter/appsettings.json": (0, int(gid), 0o640),
        "etc/dicom-adapter/certificates": (0, int(gid), 0o750),
    }
    for name in expected:
        status = (tmp_path / name).stat()
        found[name] = (status.st_uid, status.st_gid, status.st_mode & 0o7777)
    assert found == expected


def test_the_port_and_its_rate_limits() -> None:
    settings = dict(unit_settings("dicom-adapter.socket"))
    assert settings["ListenStream"] == "104"
    assert settings["TriggerLimitIntervalSec"] == "0"
    assert dict(unit_settings("dicom-adapter.service"))["StartLimitIntervalSec"] == "0"


# The gateway below the manager.


@pytest.fixture(scope="module")
def managed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ManagedGateway]:
    """A gateway that several tests share; each leaves it running."""
    quick = {"DICOM_ADAPTER_HEARTBEAT_LIMIT_SECONDS": str(HEARTBEAT_LIMIT_SECONDS)}
    with ManagedGateway(tmp_path_factory.mktemp("managed"), environ=quick) as running:
        running.wait_for(lambda: "READY=1" in running.lines(), 10, "READY")
        yield running


def test_ready_is_told_when_every_actor_runs(managed: ManagedGateway) -> None:
    lines = managed.lines()
    ready = lines.index("READY=1")
    extended = [place for place, line in enumerate(lines) if line.startswith("EXTEND_TIMEOUT_USEC=")]
    assert extended
    assert max(extended) < ready
    before = [line for line in lines[:ready] if line.startswith("STATUS=")]
    count = len(managed.status().actors)
    assert before[0].startswith(f"STATUS=0 of {count} actors running; receiver-1 starting, ")
    assert f"STATUS={count} of {count} actors running" not in before
    managed.wait_for(lambda: managed.status_told() == f"{count} of {count} actors running", 5, "STATUS")


def test_the_unit_s_sandbox_is_on(managed: ManagedGateway) -> None:
    """Otherwise this module would prove less than it says: no actor can mount, and none has a privilege."""
    if not allowed_system_calls():
        pytest.skip("systemd-analyze or libseccomp is not installed")
    for actor in managed.status().actors:
        status = Path(f"/proc/{actor.pid}/status").read_text()
        assert "\nSeccomp:\t2\n" in status
        assert "\nNoNewPrivs:\t1\n" in status


def test_a_reload_is_framed(managed: ManagedGateway) -> None:
    since = time.monotonic()
    assert managed.reload() == "nothing"
    managed.wait_for(lambda: "READY=1" in managed.lines(since), 5, "READY after the reload")
    told = [line.partition("=")[0] for line in managed.lines(since) if not line.startswith(("WATCHDOG", "STATUS"))]
    assert told == ["RELOADING", "MONOTONIC_USEC", "READY"]


def test_a_reload_that_would_need_another_port_is_refused_whole(managed: ManagedGateway) -> None:
    port = managed.settings["dicom.scp.port"]
    managed.settings["dicom.scp.port"] = free_port()
    managed.write_configuration()
    since = time.monotonic()
    assert managed.process is not None
    managed.process.send_signal(signal.SIGHUP)
    refused = "a change of dicom.scp.port takes a restart of the gateway"
    managed.wait_for(lambda: refused in managed.log_text() and "READY=1" in managed.lines(since), 10, "refusal")
    managed.settings["dicom.scp.port"] = port
    assert managed.reload() == "nothing"


def test_the_watchdog_starves_when_the_supervisor_hangs(managed: ManagedGateway) -> None:
    """And nobody was killed for what the supervisor itself did not hear."""
    before = {actor.name: actor.pid for actor in managed.status().actors}
    silence = max(WATCHDOG_SECONDS, HEARTBEAT_LIMIT_SECONDS) + 0.5
    assert managed.process is not None
    os.kill(managed.process.pid, signal.SIGSTOP)
    try:
        managed.wait_for(lambda: time.monotonic() - managed.beats()[-1] > silence, 15, "silence of the watchdog")
    finally:
        woken = time.monotonic()
        os.kill(managed.process.pid, signal.SIGCONT)
    managed.wait_for(lambda: managed.beats()[-1] > woken, 5, "beat of the watchdog")
    assert {actor.name: actor.pid for actor in managed.status().actors} == before


def test_the_watchdog_is_fed_while_a_hung_actor_is_replaced(managed: ManagedGateway) -> None:
    (hung,) = managed.pids("processor")
    count = len(managed.status().actors)
    since = time.monotonic()
    os.kill(hung, signal.SIGSTOP)
    managed.wait_for(lambda: managed.pids("processor") not in ([], [hung]) and managed.running(), 30, "successor")
    managed.wait_for(lambda: managed.status_told() == f"{count} of {count} actors running", 5, "STATUS")
    assert any(f"{count - 1} of {count} actors running; processor " in line for line in managed.lines(since))
    beats = [at for at in managed.beats() if at > since - WATCHDOG_SECONDS]
    assert max(late - early for early, late in itertools.pairwise(beats)) < WATCHDOG_SECONDS


class Knocker(threading.Thread):
    """Connects again and again, until the block ends."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.connected = self.refused = 0
        self._port = port
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.02):
            try:
                with socket.create_connection(("127.0.0.1", self._port), timeout=30):
                    self.connected += 1
            except ConnectionRefusedError:
                self.refused += 1

    def __enter__(self) -> "Knocker":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join(30.0)


def test_restarts_under_load_refuse_nobody_and_lose_nothing(tmp_path: Path) -> None:
    """Everything that the main line does, under the unit's filter of system calls, over two restarts and a kill."""
    with Trial(tmp_path, {"services.stopSeconds": 5}, gateway=ManagedGateway) as trial:
        gateway = trial.gateway
        assert isinstance(gateway, ManagedGateway)
        trial.send(4, study_objects=40, pause_seconds=0.3)
        with Knocker(gateway.port) as knocker:
            for number, how in enumerate(("stop", "kill", "stop"), 1):
                gateway.wait_for(lambda: trial.acknowledged > 50 * number, 30, "objects")  # noqa: B023
                if how == "kill":
                    gateway.kill_supervisor()
                else:
                    assert gateway.stop() == 0
                    assert gateway.status_told().startswith("stopping")
                gateway.start(60.0)
        figures = trial.prove()
        print(f"restarts: {knocker.connected} connected, {knocker.refused} refused; {figures}")
        assert knocker.refused == 0
        assert all(sender.experience.refused == 0 for sender in trial.senders)
        assert gateway.lines().count("STOPPING=1") == 2  # a killed one says nothing
        assert "Operation not permitted" not in gateway.log_text()


def test_a_port_that_differs_from_the_configuration_is_refused(tmp_path: Path) -> None:
    gateway = ManagedGateway(tmp_path)
    opened = gateway.port
    gateway.settings["dicom.scp.port"] = free_port()
    try:
        gateway.launch()
        assert gateway.process is not None
        assert gateway.process.wait(30) == 78
        sentence = f"dicom-adapter: systemd opened port {opened}, but the configuration has DICOM port"
        assert sentence in gateway.log_text()
        assert "Traceback" not in gateway.log_text()
        assert "READY=1" not in gateway.lines()
    finally:
        gateway.clean_up()
