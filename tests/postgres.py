"""A real PostgreSQL server for tests: a cluster of its own on a free port of 127.0.0.1, in a temporary directory."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import uuid
from pathlib import Path

import psycopg

from tests.peers import Server, free_port, wait_for

_PROGRAMS = Path("/usr/lib/postgresql")  # where Debian has them, by version


def _programs() -> Path:
    found = shutil.which("initdb")
    if found:
        return Path(found).parent
    versions = sorted(_PROGRAMS.glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    assert versions, "not installed: postgresql; run `make test`, or apt-get install postgresql"
    return versions[-1].parent


class Postgres:
    """A server that runs while the block lasts; it may be stopped and started meanwhile.

    Text is sorted as people in America do it, not by bytes, which is what servers of hospitals do, too.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="dicom-adapter-postgres-"))
        self._programs = _programs()
        self._user: str | None = None
        self._server: Server | None = None
        if os.geteuid() == 0:  # which PostgreSQL refuses
            known = {each.pw_name for each in pwd.getpwall()}
            self._user = "postgres" if "postgres" in known else "nobody"
            shutil.chown(self.directory, self._user)

    def __enter__(self) -> "Postgres":
        try:
            options = ["-A", "trust", "-U", "adapter", "-E", "UTF8", "--locale-provider=icu", "--icu-locale=en-US"]
            subprocess.run(
                [self._programs / "initdb", "-D", self.directory / "data", "--no-sync", "--locale=C", *options],
                check=True,
                capture_output=True,
                cwd=self.directory,
                user=self._user,
                extra_groups=[] if self._user else None,
            )
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.directory)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [self._programs / "postgres", "-D", self.directory / "data", "-k", self.directory, "-F"]
        address = ["-h", "127.0.0.1", "-p", str(self.port)]
        self._server = Server([*command, *address], self.port, self.directory / "log", user=self._user)
        wait_for(self._answers, 30.0, "answer of PostgreSQL")

    def stop(self) -> None:
        """End it; whoever is connected loses the connection."""
        if self._server is not None:
            self._server.stop(signal.SIGINT)  # "fast", in its words
            self._server = None

    def new_database(self) -> str:
        """Make an empty database; returns its URL."""
        name = f"ledger_{uuid.uuid4().hex[:8]}"
        self._execute(f"CREATE DATABASE {name}")
        return self._url(name)

    def _answers(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError):
            self._execute("SELECT 1")
            return True
        return False

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())

    def _url(self, database: str) -> str:
        return f"postgresql://adapter@127.0.0.1:{self.port}/{database}"
