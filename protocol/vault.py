"""Secrets of others (passwords of remote servers) that must outlive a restart, sealed with a key of this machine.

The key lies in the spool, for this system's account alone, and never in the ledger: a copy of the ledger tells nothing.
"""

import contextlib
import hmac
import os
import threading
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken

from protocol.errors import StorageError
from protocol.spool import sync_directory

_KEY_FILE = "vault.key"
_KEY_MODE = 0o600


class Vault:
    """Seals and opens small texts.

    Args:
        root: the spool's root, where the key lies; it is made when it is missing.

    Raises:
        StorageError: the key can neither be read nor made.
    """

    def __init__(self, root: str | Path) -> None:
        self._path = Path(root) / _KEY_FILE
        try:
            self._fernet = Fernet(self._key())
        except (OSError, ValueError) as error:
            raise StorageError(
                f"the key {self._path} cannot be used ({error}): make it readable for the user that runs "
                "dicom-adapter, or move it away, which loses the passwords of requests that are under way"
            ) from error

    def seal(self, text: str) -> str:
        """Return a text that tells nothing without the key; two seals of one text differ."""
        return self._fernet.encrypt(text.encode()).decode("ascii")

    def digest(self, data: bytes) -> str:
        """Return what tells two texts apart, from which a secret in them cannot be guessed without the key."""
        return hmac.new(self._path.read_bytes().strip(), data, "sha256").hexdigest()

    def open(self, sealed: str) -> str:
        """Return what was sealed.

        Raises:
            StorageError: it was sealed with another key, or is damaged.
        """
        try:
            return self._fernet.decrypt(sealed.encode("ascii")).decode()
        except (InvalidToken, ValueError) as error:
            raise StorageError(f"a secret was sealed with another key than {self._path}: submit it again") from error

    def _key(self) -> bytes:
        if not self._path.exists():
            self._make()
        return self._path.read_bytes().strip()

    def _make(self) -> None:
        """Several processes may do so at once: the first one's link stands."""
        temporary = self._path.with_name(f".{_KEY_FILE}.{os.getpid()}.{threading.get_ident()}")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _KEY_MODE)
        try:
            os.write(fd, Fernet.generate_key())
            os.fsync(fd)
            with contextlib.suppress(FileExistsError):
                os.link(temporary, self._path)
        finally:
            os.close(fd)
            temporary.unlink(missing_ok=True)
        sync_directory(self._path.parent)
