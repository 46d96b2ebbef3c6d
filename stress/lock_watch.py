"""Sees at run time whether any lock of hyperpool is held while another one is taken: all of them are leaves.

While a `LockWatch` is active, `threading.Lock`, `RLock` and `Condition` give watched locks to modules of hyperpool, the
locks that those modules hold at their top level are replaced, and so are the conditions inside Futures. Each thread's
held locks are listed; taking a second one is written down with both places.

Not counted: a re-entrant take, a Future under a Future (`concurrent.futures.wait` does that), and what a finalizer
takes, since it may run at any allocation: it may only reach the inbox, whose lock is re-entrant and takes no other.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any
from unittest import mock

_real_lock, _real_rlock, _real_condition = threading.Lock, threading.RLock, threading.Condition
_LOCK_TYPES = (type(_real_lock()), type(_real_rlock()))

_FUTURES = "concurrent.futures._base"
_UNWATCHED = ("hyperpool.testing", "hyperpool.demo")  # the server is another house; it shares no lock with the client


@dataclass(frozen=True, slots=True)
class Nesting:
    """One lock taken while another was held. Immutable. Sites are "file:line" of where each lock was made."""

    held: str
    taken: str
    where: str

    def __str__(self) -> str:
        return f"the lock made at {self.held} is held while the one made at {self.taken} is taken\n{self.where}"


class LockWatch:
    """Watches the locks that are made while it is active. Shared; its list is guarded by the GIL."""

    def __init__(self) -> None:
        self.nestings: list[Nesting] = []
        self.sites: set[str] = set()
        self._here = threading.local()

    @contextmanager
    def active(self) -> Iterator[LockWatch]:
        """Watch until the end of the block; locks made meanwhile stay watched for as long as they live."""
        patches = [
            mock.patch.object(threading, "Lock", self._factory(_real_lock)),
            mock.patch.object(threading, "RLock", self._factory(_real_rlock)),
            mock.patch.object(threading, "Condition", self._condition),
            *self._top_level_locks(),
        ]
        for patch in patches:
            patch.start()
        try:
            yield self
        finally:
            for patch in reversed(patches):
                patch.stop()

    def check(self) -> None:
        """Raise AssertionError that lists every nesting that was seen."""
        assert not self.nestings, "locks are leaves (DESIGN 4):\n" + "\n".join(map(str, self.nestings))

    def _factory(self, real: Callable[[], Any]) -> Callable[[], Any]:
        def make() -> Any:
            site = _site(sys._getframe(1))
            return real() if site is None else self.watch(real(), site)

        return make

    def _condition(self, lock: Any = None) -> threading.Condition:
        site = _site(sys._getframe(1))
        if lock is None and site is not None:
            lock = self.watch(_real_rlock(), site)
        return _real_condition(lock)

    def _top_level_locks(self) -> Iterator[Any]:
        for name, module in list(sys.modules.items()):
            if not _is_watched(name) or name == _FUTURES:
                continue
            for key, value in list(vars(module).items()):
                if isinstance(value, _LOCK_TYPES):
                    yield mock.patch.object(module, key, self.watch(value, f"{name}.{key}"))

    def watch(self, real: Any, site: str) -> WatchedLock:
        """Wrap a lock that was made at this site."""
        self.sites.add(site)
        return WatchedLock(self, real, site)

    @property
    def held(self) -> list[WatchedLock]:
        """The calling thread's locks, in the order in which it took them."""
        try:
            found: list[WatchedLock] = self._here.held
        except AttributeError:
            found = self._here.held = []
        return found

    def taking(self, lock: WatchedLock) -> None:
        """A thread is about to take a lock that it may have to wait for."""
        others = [other for other in self.held if other is not lock and not (other.is_future and lock.is_future)]
        if not others or lock in self.held:
            return
        frames = list(_frames(sys._getframe(2)))
        if not any(_is_finalizer(frame) for frame in frames):
            self.nestings += [Nesting(other.site, lock.site, _describe(frames)) for other in others]


class WatchedLock:
    """A lock that tells its watch. Shared; as thread-safe as the one that it wraps."""

    def __init__(self, watch: LockWatch, real: Any, site: str) -> None:
        self._watch = watch
        self._real = real
        self.site = site
        self.is_future = site.startswith(_FUTURES)

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        self._watch.taking(self)
        got: bool = self._real.acquire(blocking, timeout)
        if got:
            self._watch.held.append(self)
        return got

    def release(self) -> None:
        self._real.release()
        self._drop()

    def locked(self) -> bool:
        is_locked: bool = self._real.locked()
        return is_locked

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<WatchedLock {self.site} {self._real!r}>"

    def _drop(self) -> None:
        held = self._watch.held
        for index in reversed(range(len(held))):  # the last take is the first to go
            if held[index] is self:
                del held[index]
                return

    # What a Condition asks of a re-entrant lock. It makes one of its own where it is given a plain lock.

    def _is_owned(self) -> bool:
        return self in self._watch.held

    def _release_save(self) -> Any:
        takes = self._watch.held.count(self)
        for _ in range(takes):
            self.release()
        return takes

    def _acquire_restore(self, takes: int) -> None:
        for _ in range(takes):
            self.acquire()


def _site(frame: FrameType) -> str | None:
    """Where the lock is being made, None where that is none of our business."""
    name = frame.f_globals.get("__name__", "")
    return f"{name}:{frame.f_lineno}" if _is_watched(name) else None


def _is_watched(module: str) -> bool:
    return module == _FUTURES or (module.split(".", maxsplit=1)[0] == "hyperpool" and not module.startswith(_UNWATCHED))


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _is_finalizer(frame: FrameType) -> bool:
    # weakref.finalize objects are called by weakref's own code when their referent dies.
    return frame.f_code.co_name == "__del__" or frame.f_globals.get("__name__") == "weakref"


def _describe(frames: list[FrameType]) -> str:
    nearest = [frame for frame in frames if frame.f_globals.get("__name__") != __name__][:8]
    return "\n".join(f"    {frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}" for frame in nearest)
