"""httpx over hyperpool: `HyperpoolTransport` for ``httpx.Client``, `AsyncHyperpoolTransport` for ``httpx.AsyncClient``.

    client = httpx.Client(transport=HyperpoolTransport())

Theory of operation: a transport is the part of httpx below redirects, cookies, authentication, decoding and hooks. It
is given one request, and gives one response whose body has not been read. Here that is one `ConnectionPool.submit`. The
pool's I/O threads carry the requests of all threads, and of all event loops, over one HTTP/2 connection to each origin.
Nothing of httpx is replaced.
"""

from __future__ import annotations

from hyperpool.contrib.httpx.transports import AsyncHyperpoolTransport, HyperpoolTransport

__all__ = ["AsyncHyperpoolTransport", "HyperpoolTransport"]
