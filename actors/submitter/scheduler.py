"""Which job is next: by priority with ageing, a bounded number at once, none before its time."""

import heapq


class Scheduler:
    """Jobs that wait for a step, and those that have a place.

    A job keeps its place until it is through or has failed a step, so that what was begun is ended first; one that
    waits for its next try has none.

    Args:
        places: how many jobs are worked on at once.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._later: list[tuple[float, int, str]] = []
        self._ready: list[tuple[int, str]] = []
        self._placed: set[str] = set()

    @property
    def placed(self) -> int:
        """How many jobs have a place."""
        return len(self._placed)

    @property
    def waiting(self) -> int:
        """How many jobs have none."""
        return len(self._later) + len(self._ready)

    def add(self, job_id: str, rank: int, due: float = 0.0) -> None:
        """Let a job wait.

        Args:
            job_id: the job; it must not wait already.
            rank: see `protocol.priority.queue_rank`.
            due: when it may go on, by the monotonic clock in seconds.
        """
        heapq.heappush(self._later, (due, rank, job_id))

    def take(self, clock: float) -> list[str]:
        """Give the free places to the jobs that are next.

        Args:
            clock: now, by the monotonic clock in seconds.
        """
        while self._later and self._later[0][0] <= clock:
            _, rank, job_id = heapq.heappop(self._later)
            heapq.heappush(self._ready, (rank, job_id))
        taken = []
        while self._ready and len(self._placed) < self._places:
            job_id = heapq.heappop(self._ready)[1]
            self._placed.add(job_id)
            taken.append(job_id)
        return taken

    def release(self, job_id: str) -> None:
        """Take a job's place back."""
        self._placed.remove(job_id)

    def has_work(self, clock: float) -> bool:
        """Whether `take` would give a place now."""
        due = bool(self._ready) or bool(self._later and self._later[0][0] <= clock)
        return due and len(self._placed) < self._places
