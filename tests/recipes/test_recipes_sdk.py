"""The recipes for SDKs, botocore's and MinIO's, against a small store on this machine that speaks as S3 does."""

from __future__ import annotations

import hashlib
import io
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from hyperpool.testing import Disconnect, Reply, Request, pattern
from stage import nobody

THREADS = 32
KEYS = {"AWS_ACCESS_KEY_ID": "an-id", "AWS_SECRET_ACCESS_KEY": "a-secret", "AWS_EC2_METADATA_DISABLED": "true"}


class Store:
    """The little of S3 that the SDKs ask for. Shared; each operation is one step of a dict."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.failures: list[Any] = []

    def __call__(self, request: Request) -> Any:
        if self.failures:
            return self.failures.pop()
        return getattr(self, request.method.lower())(request)

    def put(self, request: Request) -> Any:
        body = request.read()
        if "aws-chunked" in (request.header("content-encoding") or ""):
            body = unchunked(body)
        self.objects[request.path] = body
        return Reply(200, (("etag", etag(body)),))

    def get(self, request: Request) -> Any:
        if "list-type=2" in request.query:
            return Reply(200, (("content-type", "application/xml"),), self._listing())
        return self._found(request)

    def head(self, request: Request) -> Any:
        return self._found(request)

    def delete(self, request: Request) -> Any:
        self.objects.pop(request.path, None)
        return 204

    def _found(self, request: Request) -> Any:
        body = self.objects.get(request.path)
        if body is None:
            error = "<Error><Code>NoSuchKey</Code><Message>none of that name</Message></Error>"
            return Reply(404, (("content-type", "application/xml"),), error)
        dated = ("last-modified", "Sat, 21 Nov 2026 10:00:00 GMT")
        return Reply(200, (("etag", etag(body)), dated, ("content-length", str(len(body)))), body)

    def _listing(self) -> str:
        names = "".join(f"<Contents><Key>{path.split('/')[2]}</Key></Contents>" for path in sorted(self.objects))
        return f"<ListBucketResult><IsTruncated>false</IsTruncated>{names}</ListBucketResult>"


def etag(body: bytes) -> str:
    return f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'


def unchunked(body: bytes) -> bytes:
    """What is in the chunks of aws-chunked; the checksum behind them is left out."""
    file, found = io.BytesIO(body), []
    while size := int(file.readline().partition(b";")[0], 16):
        found.append(file.read(size))
        file.readline()
    return b"".join(found)


@pytest.fixture
def boto(kitchen: Any, recipe: Any, ca_path: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A store and a client of botocore's for it."""
    pytest.importorskip("botocore")
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    store = Store()
    server = kitchen.server(store)
    return store, server, recipe("s3").client_for(server.origin, ca_path)


def test_botocore_puts_gets_lists_and_deletes_over_http2(boto: Any) -> None:
    store, server, s3 = boto
    s3.put_object(Bucket="bucket", Key="bytes", Body=b"hello")
    s3.put_object(Bucket="bucket", Key="file", Body=io.BytesIO(pattern(300_000)))
    assert store.objects == {"/bucket/bytes": b"hello", "/bucket/file": pattern(300_000)}
    assert s3.get_object(Bucket="bucket", Key="file")["Body"].read() == pattern(300_000)
    assert s3.head_object(Bucket="bucket", Key="bytes")["ContentLength"] == 5
    assert [one["Key"] for one in s3.list_objects_v2(Bucket="bucket")["Contents"]] == ["bytes", "file"]
    s3.delete_object(Bucket="bucket", Key="bytes")
    assert list(store.objects) == ["/bucket/file"]
    assert {request.http_version for request in server.requests} == {"2"}


def test_32_threads_share_one_client_and_one_connection(boto: Any) -> None:
    _, server, s3 = boto

    def round_trip(n: int) -> bytes:
        s3.put_object(Bucket="bucket", Key=str(n), Body=pattern(n * 100))
        body: bytes = s3.get_object(Bucket="bucket", Key=str(n))["Body"].read()
        return body

    with ThreadPoolExecutor(THREADS) as threads:
        assert list(threads.map(round_trip, range(96))) == [pattern(n * 100) for n in range(96)]
    assert server.connections_accepted == 1


def test_a_body_is_streamed_and_may_be_left_in_the_middle(boto: Any) -> None:
    store, server, s3 = boto
    store.objects["/bucket/big"] = pattern(5_000_000)
    body = s3.get_object(Bucket="bucket", Key="big")["Body"]
    assert body.read(1_000) == pattern(1_000)
    body.close()
    assert s3.get_object(Bucket="bucket", Key="big")["Body"].read() == pattern(5_000_000)
    assert server.connections_accepted == 1


def test_errors_are_botocores_own(boto: Any) -> None:
    import botocore.exceptions

    _, server, s3 = boto
    with pytest.raises(s3.exceptions.NoSuchKey):
        s3.get_object(Bucket="bucket", Key="none")
    server.close()
    # The second one where the connection of before had not heard yet that it is over.
    gone = (botocore.exceptions.EndpointConnectionError, botocore.exceptions.ConnectionClosedError)
    with nobody(server.port), pytest.raises(gone):
        s3.get_object(Bucket="bucket", Key="none")


def test_botocore_retries_what_failed(boto: Any) -> None:
    store, server, s3 = boto
    store.objects["/bucket/key"] = b"there"
    store.failures = [Disconnect(), 503]
    assert s3.get_object(Bucket="bucket", Key="key")["Body"].read() == b"there"
    assert len(server.requests) == 3


def test_a_refused_connection_is_botocores_error_for_that(recipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("botocore")
    import botocore.exceptions

    for name, value in {**KEYS, "AWS_MAX_ATTEMPTS": "1"}.items():
        monkeypatch.setenv(name, value)
    s3 = recipe("s3").client_for("http://127.0.0.1:1")
    with pytest.raises(botocore.exceptions.EndpointConnectionError):
        s3.list_objects_v2(Bucket="bucket")


def test_minio_shares_one_connection_too(kitchen: Any, recipe: Any, ca_path: str) -> None:
    pytest.importorskip("minio")
    store = Store()
    server = kitchen.server(store)
    minio = recipe("minio_client").client_for(server.origin, "an-id", "a-secret", ca_path)
    names = threading.local()

    def round_trip(n: int) -> bytes:
        names.last = str(n)
        minio.put_object("bucket", names.last, io.BytesIO(pattern(n)), n)
        response = minio.get_object("bucket", names.last)
        try:
            data: bytes = response.read()
            return data
        finally:
            response.close()
            response.release_conn()

    with ThreadPoolExecutor(THREADS) as threads:
        assert list(threads.map(round_trip, range(1, 97))) == [pattern(n) for n in range(1, 97)]
    assert server.connections_accepted == 1
