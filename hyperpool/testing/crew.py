"""The threads that run handlers, so that one that waits stops nobody else.

They are made as they are needed and end with the server. Daemons, since a handler that never returns must not keep
the interpreter alive; `Crew.close` says so when it had to leave one behind.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

Job = Callable[[], None]


class Crew:
    """Threads that take jobs in order.

    Shared; guarded by _cond.
    """

    def __init__(self, *, max_threads: int, on_error: Callable[[BaseException], None]) -> None:
        self._cond = threading.Condition(threading.Lock())
        self._max_threads = max_threads
        self._on_error = on_error
        self._jobs: deque[Job] = deque()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._is_closed = False

    def submit(self, job: Job) -> None:
        """Run the job on a thread of the crew, a new one if all are busy and there may be more."""
        with self._cond:
            if self._is_closed:
                return
            self._jobs.append(job)
            self._cond.notify()
            if self._idle >= len(self._jobs) or len(self._threads) >= self._max_threads:
                return
            thread = threading.Thread(target=self._run, name=f"handler-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()  # inside the lock: close() must never meet a thread that cannot be joined yet

    def close(self, timeout_s: float) -> list[str]:
        """Stop and join all; returns the names of those whose handler did not return in time."""
        ends_at = time.monotonic() + timeout_s
        with self._cond:
            self._is_closed = True
            self._jobs.clear()
            self._cond.notify_all()
        others = [thread for thread in self._threads if thread is not threading.current_thread()]
        for thread in others:
            thread.join(max(0.0, ends_at - time.monotonic()))
        return [thread.name for thread in others if thread.is_alive()]

    def _run(self) -> None:
        while job := self._next():
            try:
                job()
            except Exception as error:
                self._on_error(error)

    def _next(self) -> Job | None:
        with self._cond:
            self._idle += 1
            self._cond.wait_for(lambda: self._jobs or self._is_closed)
            self._idle -= 1
            return self._jobs.popleft() if self._jobs else None
