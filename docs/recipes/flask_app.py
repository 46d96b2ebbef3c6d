"""A Flask application with one client for all of its threads.

    gunicorn --workers 4 --worker-class gthread --threads 16 flask_app:app

Importing this connects to nothing, so it may be imported before a server forks its workers, with ``--preload``, too.
"""

import os

from flask import Flask, Response

import hyperpool

client = hyperpool.Client(
    base_url=os.environ["UPSTREAM"],
    verify=os.environ.get("UPSTREAM_CA") or True,
    timeout=hyperpool.Timeout(20, connect=10),
)
app = Flask(__name__)


@app.get("/size/<int:n>")
def size(n):
    upstream = client.get(f"/bytes/{n}").raise_for_status()
    return {"bytes": len(upstream.content), "version": upstream.http_version, "worker": os.getpid()}


@app.get("/copy/<int:n>")
def copy(n):
    """A body of any size, passed on while it comes: what a slow reader does not take stays with the server."""

    def pieces():
        with client.stream("GET", f"/bytes/{n}") as upstream:
            yield from upstream.raise_for_status().iter_bytes()

    return Response(pieces(), content_type="application/octet-stream")


@app.errorhandler(hyperpool.HyperpoolError)
def upstream_failed(error):
    """Every failure of the server behind us, in one place."""
    return {"error": type(error).__name__}, 504 if isinstance(error, TimeoutError) else 502
