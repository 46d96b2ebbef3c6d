"""Many requests, so many of them under way at a time: what `Client.map` iterates over.

Leaving an iteration early, by whatever way, cancels what is under way.
"""

from __future__ import annotations

import queue
import reprlib
from collections.abc import Generator, Iterable, Iterator, Mapping, Sized
from contextlib import closing
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hyperpool.handoff.futures import ResponseFuture
    from hyperpool.handoff.response import Response
    from hyperpool.policy.progress import ProgressLike


def in_order(submitted: Iterator[ResponseFuture], max_in_flight: int) -> Generator[Response, None, None]:
    """The responses in the order of their requests."""
    window: list[ResponseFuture] = []
    try:
        for future in submitted:
            window.append(future)
            if len(window) >= max_in_flight:
                yield _take_first(window)
        while window:
            yield _take_first(window)
    finally:
        _leave(window)


def _take_first(window: list[ResponseFuture]) -> Response:
    response = window[0].result()
    del window[0]  # not before: Ctrl-C while waiting must find it, to cancel it with the others
    return response


def as_completed(submitted: Iterator[ResponseFuture], max_in_flight: int) -> Generator[Response, None, None]:
    """The responses in the order in which they come."""
    done: queue.SimpleQueue[Any] = queue.SimpleQueue()
    under_way: set[Any] = set()
    try:
        for future in submitted:
            under_way.add(future)
            future.add_done_callback(done.put)
            if len(under_way) >= max_in_flight:
                yield _take_done(done, under_way)
        while under_way:
            yield _take_done(done, under_way)
    finally:
        _leave(under_way)


def _leave(futures: Iterable[ResponseFuture]) -> None:
    """Nobody takes their responses any more; one that is streamed holds a stream."""
    for future in futures:
        if not future.cancel():
            future.add_done_callback(_close)


def _close(future: Any) -> None:
    if not future.cancelled() and future.exception() is None:
        future.result().close()


def _take_done(done: queue.SimpleQueue[Any], under_way: set[Any]) -> Response:
    future = done.get()
    under_way.discard(future)
    response: Response = future.result()
    return response


def told(
    responses: Generator[Response, None, None], progress: ProgressLike, total: int | None
) -> Generator[Response, None, None]:
    """The same responses, with word of how many there were. Raises TypeError at once for a progress that is none."""
    from hyperpool.policy.progress import check_progress

    check_progress(progress)
    return _telling(responses, progress, total)


def _telling(
    responses: Generator[Response, None, None], progress: ProgressLike, total: int | None
) -> Generator[Response, None, None]:
    from hyperpool.policy.progress import shown

    with closing(responses), shown(progress, "requests", unit="") as tell:
        tell(0, total)
        for count, response in enumerate(responses, 1):
            tell(count, total)
            yield response


def parts_of(entry: Any, options: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
    """Method, URL and options of one entry of what is mapped: a URL, (method, url), or (method, url, options).

    Raises TypeError for anything else.
    """
    if isinstance(entry, str):
        return "GET", entry, options
    if not isinstance(entry, (tuple, list)) or not 2 <= len(entry) <= 3:
        raise _wrong_shape(entry)
    method, url, *own = entry
    if own and own[0] is not None and not isinstance(own[0], Mapping):
        raise _wrong_shape(entry)
    return method, url, {**options, **((own[0] or {}) if own else {})}


_shown = reprlib.Repr()
_shown.maxlevel = 1  # headers and the like are not shown: they may hold secrets


def _wrong_shape(entry: Any) -> TypeError:
    return TypeError(f"map() takes a URL, (method, url) or (method, url, options) each, not {_shown.repr(entry)}")


def check_many(requests: Any) -> None:
    """Raises TypeError for one URL in place of many, which would be read letter by letter, and for what is not many."""
    if isinstance(requests, (str, bytes, bytearray)) or not hasattr(requests, "__iter__"):
        raise TypeError(f"map() takes many requests, not one {type(requests).__name__}: give a list, as in map([url])")


def len_of(requests: object) -> int | None:
    """How many there will be, where they tell."""
    return len(requests) if isinstance(requests, Sized) else None
