"""The process tree: listening sockets, spawn, watch, back off, drain, restart, sd_notify. Nothing else."""

from supervisor.supervisor import run

__all__ = ["run"]
