"""Which abstract syntaxes are taken for storage: every one that is not known to be something else.

Private SOP classes, retired ones, and those that the standard adds after this was written are all stored;
Query/Retrieve, worklists, print, commitment and the like are refused, since nobody here answers them.
"""

import functools

from pydicom.uid import UID
from pynetdicom.sop_class import (  # type: ignore[attr-defined] # SOP classes are made when it is imported
    MediaStorageDirectoryStorage,
    StorageCommitmentPushModel,
)

from protocol.dimse.uids import is_uid

_COMMITMENT_PULL_MODEL = "1.2.840.10008.1.20.2"  # retired; pynetdicom does not know it
_NAMED_STORAGE_ONLY = frozenset((MediaStorageDirectoryStorage, StorageCommitmentPushModel, _COMMITMENT_PULL_MODEL))


@functools.lru_cache(maxsize=4096)
def is_storage(abstract_syntax: str) -> bool:
    """Whether objects of this abstract syntax are stored when they are sent by C-STORE.

    The registry of PS3.6 annex A calls storage SOP classes so in their names, retired ones too.
    """
    if not is_uid(abstract_syntax) or abstract_syntax in _NAMED_STORAGE_ONLY:
        return False
    uid = UID(abstract_syntax)
    return not uid.type or (uid.type == "SOP Class" and "Storage" in uid.name)
