"""Delivery by STOW-RS."""

from actors.exporter.stow.stow import StowDeadlines, StowDestination, StowSender

__all__ = ["StowDeadlines", "StowDestination", "StowSender"]
