"""urllib3's pools over hyperpool: `PoolManager`, `ProxyManager` and the pools that they make.

Theory of operation: these are subclasses of urllib3's own classes, and its `urlopen` does what it always does with
Retry, redirects, Timeout and exceptions. Where it would take a socket from a queue and write to it (`_get_conn`,
`_make_request`, `_put_conn`), the request goes to the one ConnectionPool that all pools of a manager share, whose I/O
threads carry any number of requests over one HTTP/2 connection.

Nothing of urllib3 is replaced: ``import urllib3`` is the same as before.
"""

from __future__ import annotations

from hyperpool.contrib.urllib3.errors import ConnectTimeoutError, ReadTimeoutError
from hyperpool.contrib.urllib3.managers import PoolManager, ProxyManager, SOCKSProxyManager, proxy_from_url
from hyperpool.contrib.urllib3.pools import HTTPConnectionPool, HTTPSConnectionPool, connection_from_url
from hyperpool.contrib.urllib3.response import HTTPResponse

__all__ = [
    "ConnectTimeoutError",
    "HTTPConnectionPool",
    "HTTPResponse",
    "HTTPSConnectionPool",
    "PoolManager",
    "ProxyManager",
    "ReadTimeoutError",
    "SOCKSProxyManager",
    "connection_from_url",
    "proxy_from_url",
]
