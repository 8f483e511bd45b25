"""The demo's modality: a process of its own that sends directories by C-STORE, and says how far it got.

python -m demo.send PORT CALLED_AE_TITLE DIRECTORY...
"""

import socket
import sys
from pathlib import Path

import pydicom
from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage, MRImageStorage

AE_TITLE = "DEMO_MODALITY"


def main() -> int:
    """Send each directory in an association of its own; returns 0 when every object was answered Success."""
    port, called, *directories = sys.argv[1:]
    sender = AE(ae_title=AE_TITLE)
    for sop_class in (CTImageStorage, MRImageStorage):
        sender.add_requested_context(sop_class, pydicom.uid.ExplicitVRLittleEndian)
    for directory in directories:
        files = sorted(Path(directory).glob("*.dcm"))
        association = sender.associate("127.0.0.1", int(port), ae_title=called)
        if not association.is_established:
            print(f"no association with {called} on port {port}", file=sys.stderr)
            return 1
        _send_at_once(association)
        for count, file in enumerate(files, start=1):
            status = association.send_c_store(pydicom.dcmread(file))
            if not status or status.Status != 0x0000:
                print(f"object {count} was not stored: {status}", file=sys.stderr)
                return 1
            print(f"stored {count} {len(files)}", flush=True)
        association.release()
    return 0


def _send_at_once(association: object) -> None:
    """Without Nagle's algorithm, as a sender should be."""
    connection = association.dul.socket.socket  # type: ignore[attr-defined]
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


if __name__ == "__main__":
    sys.exit(main())
