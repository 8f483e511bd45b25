"""Delivery by C-STORE: an SCU of our own, whose bytes are those of the files."""

from actors.exporter.scu.scu import ScuSender
from actors.exporter.scu.values import Deadlines, ScuDestination

__all__ = ["Deadlines", "ScuDestination", "ScuSender"]
