"""What is wrong with this machine for a configuration: ports, directories, file systems, SQLite."""

import errno
import importlib.util
import os
import re
import socket
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from protocol.config.problems import Problem
from protocol.config.settings import Settings, database_file

# Shared by several machines, so that WAL's shared memory is not (https://sqlite.org/wal.html, "Overview").
_SHARED_FILE_SYSTEMS = re.compile(
    r"(nfs|cifs|smb|9p|ceph|lustre|gfs2|ocfs2|afs|fuse\.(sshfs|s3fs|gluster|ceph|rclone)).*"
)
_MOUNTS = Path("/proc/self/mountinfo")
# A socket's path may have 107 bytes (unix(7)), and an endpoint's name of ours stays below 40.
_LONGEST_RUNTIME_DIRECTORY = 107 - 40
_BIND_REMEDIES = {
    errno.EADDRINUSE: "stop what listens there (ss -ltnp shows it), or choose another port",
    errno.EACCES: "choose a port from 1024 on, or give the service CAP_NET_BIND_SERVICE",
    errno.EADDRNOTAVAIL: "choose an address of this machine (ip address shows them)",
}


def check_environment(settings: Settings, *, listening: bool = False) -> list[str]:
    """Return what keeps these settings from working on this machine, as `path: what is wrong: the remedy`.

    Args:
        settings: the settings in force.
        listening: the ports are this service's already (from systemd, or at a reload), so they are not tried.
    """
    problems = [*_directories(settings), *_ledger(settings), *_token_file(settings), *_clara(settings)]
    if not listening:
        problems += _ports(settings)
    return [str(problem) for problem in problems]


def environment_warnings(settings: Settings) -> list[str]:
    """Return what works on this machine, but not as it should: quotas beyond the disk, a faulty SQLite."""
    return [str(problem) for problem in (*_quotas(settings), *_sqlite(settings))]


def _ports(settings: Settings) -> Iterator[Problem]:
    scp, api = settings.dicom.scp, settings.api
    wanted = [("DicomAdapter.dicom.scp.port", address, scp.port) for address in scp.bind]
    wanted.append(("DicomAdapter.api.port", api.bind, api.port))
    with ExitStack() as opened:  # all at once, so that two of ours in each other's way are found too
        for path, address, port in wanted:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            try:
                listener = opened.enter_context(socket.socket(family, socket.SOCK_STREAM))
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                listener.bind((address, port))
                listener.listen(1)
            except OSError as error:
                remedy = _BIND_REMEDIES.get(error.errno or 0, "choose another address")
                yield Problem(path, f"cannot listen on {address} port {port}: {os.strerror(error.errno or 0)}", remedy)


def _clara(settings: Settings) -> Iterator[Problem]:
    """Return what Clara Platform needs and is not here."""
    platform = settings.services.platform
    if platform.endpoint == "embedded":
        return
    if importlib.util.find_spec("nvidia_clara") is None or importlib.util.find_spec("grpc") is None:
        yield Problem(
            "DicomAdapter.services.platform.endpoint",
            f"{platform.endpoint} is Clara Platform, and NVIDIA's client package is not installed",
            "install dicom-adapter[clara]",
        )
    tls = platform.tls
    for name, file in (("caFile", tls.ca_file), ("certificateFile", tls.certificate_file), ("keyFile", tls.key_file)):
        if file and not os.access(file, os.R_OK):
            yield Problem(
                f"DicomAdapter.services.platform.tls.{name}",
                f"{file} cannot be read",
                f"name a PEM file that user {os.geteuid()} may read",
            )


def _directories(settings: Settings) -> Iterator[Problem]:
    wanted = {
        "DicomAdapter.storage.temporary": settings.storage.temporary,
        "DicomAdapter.runtimeDirectory": settings.runtime_directory,
    }
    if file := database_file(settings):
        wanted["ConnectionStrings.DicomAdapterDatabase"] = os.path.dirname(file)
    for path, directory in wanted.items():
        if reason := _unwritable(directory):
            yield Problem(
                path,
                f"{directory} cannot be written: {reason}",
                f"give user {os.geteuid()} a directory there",
            )
    if len(os.fsencode(settings.runtime_directory)) > _LONGEST_RUNTIME_DIRECTORY:
        yield Problem(
            "DicomAdapter.runtimeDirectory",
            f"{settings.runtime_directory} is too long for the sockets in it",
            f"allowed are {_LONGEST_RUNTIME_DIRECTORY} bytes",
        )


def existing(path: str) -> str:
    """Return the path, or the nearest directory above it that exists."""
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return path


def _unwritable(directory: str) -> str:
    """Return why nothing can be made in a directory, or above one that is still to be made; empty when it can."""
    try:
        tempfile.TemporaryFile(dir=existing(directory)).close()  # permissions alone do not tell of a read-only mount
    except OSError as error:
        return os.strerror(error.errno or 0)
    return ""


def _ledger(settings: Settings) -> Iterator[Problem]:
    path, file = "ConnectionStrings.DicomAdapterDatabase", database_file(settings)
    if file is None:
        if importlib.util.find_spec("psycopg") is None:
            remedy = "install it into this environment: pip install 'psycopg[binary]>=3.2'"
            yield Problem(path, "PostgreSQL is wanted, and its driver psycopg is not installed", remedy)
        return
    if os.path.lexists(file) and not (
        stat.S_ISREG(os.stat(existing(file)).st_mode) and os.access(file, os.R_OK | os.W_OK)
    ):
        yield Problem(path, f"{file} is no file that can be read and written", f"give it to user {os.geteuid()}")
    kind = _file_system(file)
    if _SHARED_FILE_SYSTEMS.fullmatch(kind):
        yield Problem(path, f"{file} is on {kind}, where SQLite's WAL loses data", "use a local disk, or PostgreSQL")


def _file_system(path: str) -> str:
    """Return the type of the file system that holds a path (proc(5), mountinfo); empty when that is not known."""
    real, best, kind = os.path.realpath(path), "", ""
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""  # no /proc here: then this one check is left to SQLite itself
    for line in lines:
        before, _, after = line.partition(" - ")
        mount = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), before.split()[4])
        inside = real == mount or real.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):  # the later mount on the same place hides the earlier
            best, kind = mount, after.split()[0]
    return kind


def _token_file(settings: Settings) -> Iterator[Problem]:
    file = settings.api.token_file
    if file is None:
        return
    path, remedy = (
        "DicomAdapter.api.tokenFile",
        f"let it hold the token alone, readable for user {os.geteuid()}",
    )
    try:
        if not Path(file).read_text(encoding="ascii").strip():
            yield Problem(path, f"{file} is empty", remedy)
    except (OSError, UnicodeDecodeError) as error:
        yield Problem(path, f"{file} cannot be read: {getattr(error, 'strerror', 'not ASCII')}", remedy)


def _quotas(settings: Settings) -> Iterator[Problem]:
    quotas = [("DicomAdapter.storage.volumeSize", settings.storage.temporary, settings.storage.quota_bytes)]
    if file := database_file(settings):
        quotas.append(("DicomAdapter.database.volumeSize", file, settings.database_quota_bytes))
    for path, place, quota in quotas:
        disk = os.statvfs(existing(place))
        total = disk.f_blocks * disk.f_frsize
        if quota is not None and quota > total:
            yield Problem(path, f"{quota} bytes are more than the {total} of {place}", "the file system is the limit")
    disk = os.statvfs(existing(settings.storage.temporary))
    reserve, free = settings.storage.reserve_space_gb * 1e9, disk.f_bavail * disk.f_frsize
    if free < reserve:
        wrong = f"{settings.storage.temporary} has {free / 1e9:.1f} GB free, less than the reserve"
        yield Problem("DicomAdapter.storage.reserveSpaceGB", wrong, "nothing is taken in until there is more")


def _sqlite(settings: Settings) -> Iterator[Problem]:
    """Warn of SQLite's WAL-reset fault: 3.7.0 to 3.51.2, mended also in 3.50.7 and 3.44.6 (sqlite.org/wal.html)."""
    version = sqlite3.sqlite_version_info
    mended = version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45)
    if database_file(settings) and not mended:
        wrong = f"SQLite {sqlite3.sqlite_version} can, very rarely, lose commits in WAL mode"
        yield Problem("ConnectionStrings.DicomAdapterDatabase", wrong, "use SQLite 3.51.3 or later, or PostgreSQL")
