"""What the supervisor tells: to the command line every actor's state, to systemd a sentence."""

import os
import time
from collections.abc import Sequence

from protocol import messages
from protocol.board import Board, Intake
from supervisor.child import Child
from supervisor.post import Post


def status(posts: Sequence[Post], leaving: Sequence[Child], board: Board) -> messages.Status:
    """Every actor, those that were replaced and still finish what they have, and the disk."""
    clock = time.monotonic()
    actors = [_at_post(post, clock) for post in posts]
    actors += [_of_child(child, clock) for child in leaving]
    return messages.Status(
        actors=tuple(actors),
        active_associations=board.active_associations,
        storage=messages.StorageStatus(
            state="paused" if board.intake is Intake.PAUSED else "open",
            free_bytes=board.free_bytes,
            reserved_bytes=board.reserved_bytes,
        ),
        supervisor_pid=os.getpid(),
    )


def sentence(posts: Sequence[Post], board: Board, *, stopping: bool) -> str:
    """How the gateway is, such as `8 of 9 actors running; api backoff`."""
    if stopping:
        return f"stopping; still there: {', '.join(post.name for post in posts if post.child) or 'nobody'}"
    missing = [f"{post.name} {post.state}" for post in posts if not post.filled]
    told = f"{len(posts) - len(missing)} of {len(posts)} actors running"
    if missing:
        told += "; " + ", ".join(missing)
    return told + ("; intake paused: no space" if board.intake is Intake.PAUSED else "")


def _at_post(post: Post, clock: float) -> messages.ActorStatus:
    if post.child is not None:
        trouble = post.trouble if post.child.state == "starting" else ""
        return _of_child(post.child, clock, post.restarts, trouble)
    return messages.ActorStatus(
        name=post.name,
        kind=post.kind,
        pid=None,
        state=post.state,
        restarts=post.restarts,
        uptime_seconds=0.0,
        last_heartbeat_seconds=0.0,
        detail=post.trouble,
    )


def _of_child(child: Child, clock: float, restarts: int = 0, trouble: str = "") -> messages.ActorStatus:
    return messages.ActorStatus(
        name=child.name,
        kind=child.name.partition("-")[0],
        pid=child.pid,
        state=child.state,
        restarts=restarts,
        uptime_seconds=round(clock - child.started, 1),
        last_heartbeat_seconds=round(clock - child.last_beat, 1),
        detail=child.detail or trouble,
    )
