"""`make install` in a directory of its own: versions beside each other, upgrade, rollback, uninstall."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import threading
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
COPIED = ("actors", "cli", "configs", "docs", "protocol", "supervisor", "systemd", "tools", "Makefile")

# A virtual environment without pip is made in a moment.
INTERPRETER = f"""#!/bin/sh
case "$1 $2" in "-m venv") shift 2; exec {sys.executable} -m venv --without-pip "$@" ;; esac
exec {sys.executable} "$@"
"""

# What tools/install wants of pip, without a network: `python -m pip install … SOURCE[EXTRAS]`; dependencies are ours.
PIP = """
import os, pathlib, re, shutil, sys, sysconfig
source = pathlib.Path(sys.argv[-1].partition("[")[0])
target = pathlib.Path(sysconfig.get_path("purelib"))
for package in ("actors", "cli", "protocol", "supervisor"):
    shutil.copytree(source / package, target / package)
version = re.search(r'^version = "(.+)"', (source / "pyproject.toml").read_text(), re.M)[1]
(target / "dependencies.pth").write_text(os.environ["TEST_DEPENDENCIES"])
metadata = target / f"dicom_adapter-{version}.dist-info"
metadata.mkdir()
(metadata / "METADATA").write_text(f"Metadata-Version: 2.1\\nName: dicom-adapter\\nVersion: {version}\\n")
script = pathlib.Path(sys.executable).with_name("dicom-adapter")
script.write_text(f"#!{sys.executable}\\nimport sys\\nfrom cli import main\\nsys.exit(main())\\n")
script.chmod(0o755)
"""


class Machine:
    """A root directory, and sources of several versions.

    Args:
        directory: for both.
        pip: a stand-in for pip, or None for the real one.
    """

    def __init__(self, directory: Path, pip: str | None = PIP) -> None:
        self.root = directory / "root"
        self.versions = self.root / "opt/dicom-adapter"
        self.configuration = self.root / "etc/dicom-adapter"
        self.source = directory / "source"
        self.source.mkdir()
        for name in (*COPIED, "CHANGELOG.md", "LICENSE", "README.md", "pyproject.toml"):
            copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
            copy(REPOSITORY / name, self.source / name)
        self.environ = {**os.environ, "DESTDIR": str(self.root), "PYTHON": sys.executable}
        if pip is not None:
            stand_in = directory / "pip-stand-in"
            (stand_in / "pip").mkdir(parents=True)
            (stand_in / "pip/__init__.py").touch()
            (stand_in / "pip/__main__.py").write_text(pip)
            interpreter = stand_in / "python"
            interpreter.write_text(INTERPRETER)
            interpreter.chmod(0o755)
            dependencies = sysconfig.get_path("purelib")
            self.environ.update(PYTHONPATH=str(stand_in), PYTHON=str(interpreter), TEST_DEPENDENCIES=dependencies)

    def set_version(self, version: str) -> None:
        """Make the source one of another version."""
        file = self.source / "pyproject.toml"
        file.write_text(re.sub(r'^version = ".+"', f'version = "{version}"', file.read_text(), flags=re.M))

    def run(self, *command: str | Path) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            list(map(str, command)), cwd=self.source, env=self.environ, capture_output=True, text=True, check=False
        )

    def do(self, *command: str | Path) -> str:
        """Run a command that must succeed; returns what it said."""
        done = self.run(*command)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def link(self, name: str) -> str:
        return os.readlink(self.versions / name)

    def version(self) -> str:
        """What the installed command says."""
        return self.do(self.versions / "current/bin/dicom-adapter", "--version").split()[-1]

    def snapshot(self) -> dict[str, bytes | str]:
        """Every file and link, but what Python compiled."""
        found: dict[str, bytes | str] = {}
        for path in self.root.rglob("*"):
            if path.is_symlink():
                found[str(path)] = os.readlink(path)
            elif path.is_file() and path.suffix != ".pyc":
                found[str(path)] = path.read_bytes()
        return found


class Watcher(threading.Thread):
    """Sees whether a program is there at every moment of a block."""

    def __init__(self, program: Path) -> None:
        super().__init__(daemon=True)
        self.looks = self.missing = 0
        self._program = program
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.is_set():
            self.looks += 1
            self.missing += not self._program.exists()

    def __enter__(self) -> "Watcher":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join(10.0)


def test_install_upgrade_rollback_and_uninstall(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    data = {"var/lib/dicom-adapter/dicomadapter.db": "ledger", "payloads/instances/one.dcm": "instance"}
    for name, content in data.items():
        (machine.root / name).parent.mkdir(parents=True)
        (machine.root / name).write_text(content)

    # The first version.
    machine.set_version("1.0.0")
    said = machine.do("make", "-s", "install")
    assert "version 1.0.0 is current" in said
    assert "systemctl enable --now dicom-adapter" in said
    assert (machine.link("current"), machine.version()) == ("1.0.0", "1.0.0")
    assert os.readlink(machine.root / "usr/local/bin/dicom-adapter") == "/opt/dicom-adapter/current/bin/dicom-adapter"
    unit = (machine.root / "etc/systemd/system/dicom-adapter.service").read_text()
    assert "ExecStart=/opt/dicom-adapter/current/bin/dicom-adapter run --config /etc/dicom-adapter/app" in unit
    config = machine.configuration / "appsettings.json"
    assert config.read_bytes() == (REPOSITORY / "configs/appsettings.json").read_bytes()
    assert config.stat().st_mode & 0o777 == 0o640

    # A site changes its configuration; the next version brings another default, and other units.
    config.write_text('{"DicomAdapter": {"dicom": {"scp": {"port": 11112}}}}')
    socket_unit = machine.source / "systemd/dicom-adapter.socket"
    socket_unit.write_text(socket_unit.read_text() + "# second\n")
    machine.set_version("2.0.0")
    with Watcher(machine.versions / "current/bin/dicom-adapter") as watcher:
        said = machine.do("make", "-s", "install")
        assert "version 2.0.0 is current, 1.0.0 is kept for rollback" in said
        assert "kept /etc/dicom-adapter/appsettings.json" in said
        assert (machine.link("current"), machine.link("previous"), machine.version()) == ("2.0.0", "1.0.0", "2.0.0")
        assert config.read_text() == '{"DicomAdapter": {"dicom": {"scp": {"port": 11112}}}}'
        new = machine.configuration / "appsettings.json.new"
        assert new.read_bytes() == (REPOSITORY / "configs/appsettings.json").read_bytes()
        assert not (machine.configuration / "values.yaml.new").exists()
        installed_socket = machine.root / "etc/systemd/system/dicom-adapter.socket"
        assert installed_socket.read_text().endswith("# second\n")

        # There and back; the installed copy of the program can do that without the source.
        machine.do("tools/install", "rollback")
        assert (machine.link("current"), machine.link("previous"), machine.version()) == ("1.0.0", "2.0.0", "1.0.0")
        assert not installed_socket.read_text().endswith("# second\n")
        machine.do(machine.versions / "current/share/tools/install", "rollback")
        assert (machine.link("current"), machine.link("previous")) == ("2.0.0", "1.0.0")
    assert watcher.missing == 0 < watcher.looks

    said = machine.do("make", "-s", "uninstall")
    assert "/etc/dicom-adapter" in said
    assert "/var/lib/dicom-adapter" in said
    left = {str(path.relative_to(machine.root)) for path in machine.root.rglob("*") if not path.is_dir()}
    names = ("appsettings.json", "appsettings.json.new", "values.yaml")
    assert left == {*data, *(f"etc/dicom-adapter/{name}" for name in names)}
    assert {name: (machine.root / name).read_text() for name in data} == data


def test_a_version_that_cannot_work_changes_nothing(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.do("tools/install")
    config = machine.configuration / "appsettings.json"
    config.write_text('{"DicomAdapter": {"dicom": {"scp": {"port": 0}}}}')
    before = machine.snapshot()

    machine.set_version("2.0.0")
    done = machine.run("tools/install")
    assert done.returncode == 78
    assert "DicomAdapter.dicom.scp.port" in done.stderr
    assert "nothing was changed" in done.stderr
    assert machine.snapshot() == before

    done = machine.run("tools/install", "rollback")
    assert done.returncode == 1
    assert "there is no version before" in done.stderr
    assert machine.snapshot() == before


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_pip_brings_all_that_the_installed_version_needs(tmp_path: Path) -> None:
    """With the real pip, and so with a network or a mirror."""
    machine = Machine(tmp_path, pip=None)
    machine.do("tools/install")
    machine.do("tools/install")
    assert (machine.link("current"), machine.link("previous")) == (f"{machine.version()}-2", machine.version())
    program = machine.versions / "current/bin/dicom-adapter"
    assert "valid" in machine.do(program, "check-config", "--config", machine.configuration / "appsettings.json")
