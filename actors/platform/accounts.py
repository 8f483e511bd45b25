"""Whom a pipeline runs as: the service's own user, or another one who cannot change what belongs to the service."""

import os
import pwd
from pathlib import Path

import msgspec

from protocol.errors import RefusedError

_CAP_CHOWN, _CAP_DAC_OVERRIDE, _CAP_KILL, _CAP_SETGID, _CAP_SETUID = 0, 1, 5, 6, 7
_NEEDED_CAPABILITIES = sum(
    1 << number for number in (_CAP_CHOWN, _CAP_DAC_OVERRIDE, _CAP_KILL, _CAP_SETGID, _CAP_SETUID)
)


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """A user that pipelines run as.

    Args:
        name: login name.
        uid: -1 when it is the service's own user, so that nothing is switched.
        gid: primary group.
        groups: all groups.
        home: home directory.
    """

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str

    @property
    def other(self) -> bool:
        """Whether it is another user than the service's."""
        return self.uid >= 0


def account_of(user: str) -> Account:
    """Look up the account that a pipeline names.

    Args:
        user: a login name, or "" for the service's own.

    Raises:
        RefusedError: there is no such user, or the service may not switch to it.
    """
    own = os.geteuid()
    try:
        entry = pwd.getpwnam(user) if user else pwd.getpwuid(own)
    except KeyError:
        if user:
            raise RefusedError(
                f"there is no user {user}: create it, or register the pipeline with another one"
            ) from None
        return Account(name=str(own), uid=-1, gid=os.getegid(), groups=(), home="/")
    if own != entry.pw_uid and not _may_switch():
        raise RefusedError(
            f"the service may not run a pipeline as user {user}: give it the capabilities that "
            "systemd/dicom-adapter.service.d/gpu-pipelines.conf.example names, or register the pipeline without a user"
        )
    return Account(
        name=entry.pw_name,
        uid=-1 if entry.pw_uid == own else entry.pw_uid,
        gid=entry.pw_gid,
        groups=tuple(os.getgrouplist(entry.pw_name, entry.pw_gid)),
        home=entry.pw_dir,
    )


def _may_switch() -> bool:
    """Whether this process may become another user, and take care of what that one leaves (capabilities(7))."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    effective = int(status.partition("\nCapEff:")[2].split(maxsplit=1)[0], 16)
    return effective & _NEEDED_CAPABILITIES == _NEEDED_CAPABILITIES


def check_reach(account: Account, directory: Path) -> None:
    """See that another user can get to a directory.

    Raises:
        RefusedError: a directory above cannot be searched by it; the sentence says which.
    """
    for above in reversed(directory.parents):
        status = above.stat()
        if status.st_uid == account.uid:
            allowed = status.st_mode & 0o100
        elif status.st_gid in account.groups:
            allowed = status.st_mode & 0o010
        else:
            allowed = status.st_mode & 0o001
        if not allowed:
            raise RefusedError(
                f"the user {account.name} cannot reach {directory}: allow it to search {above} (chmod o+x), "
                "or set DicomAdapter.storage.temporary to another place"
            )
