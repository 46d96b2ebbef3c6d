"""Who we are: auth= in its forms, the user in a URL, netrc, digest; and which of them counts."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from client_support import H2_TLS, Kit, Wire, raised
from urllib3 import HTTPHeaderDict

import hyperpool
from hyperpool.policy.auth import BasicAuth, BearerAuth, Netrc
from hyperpool.policy.digest import DigestAuth
from hyperpool.testing import Reply, Request, inline
from stage import WAIT_S

BASIC_UP = "Basic dTpw"


@inline
def told(request: Request) -> str:
    """The Authorization fields that came, as JSON."""
    return json.dumps([value for name, value in request.headers if name == "authorization"])


@pytest.fixture(autouse=True)
def no_netrc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A netrc of the test's own, which is not there yet."""
    path = tmp_path / "netrc"
    monkeypatch.setenv("NETRC", str(path))
    return path


def with_user(url: str, userinfo: str) -> str:
    return url.replace("://", f"://{userinfo}@")


@pytest.mark.parametrize(
    ("auth", "value"),
    [
        (("u", "p"), BASIC_UP),
        ((b"u", b"p"), BASIC_UP),
        (("\u00e4", ""), "Basic w6Q6"),
        (BasicAuth("u", "p"), BASIC_UP),
        (BearerAuth("t0ken"), "Bearer t0ken"),
        (BearerAuth(lambda: "fresh"), "Bearer fresh"),
    ],
)
def test_each_form_of_auth_is_sent(kit: Kit, wire: Wire, auth: Any, value: str) -> None:
    server, client = kit.pair(wire, told)
    assert client.get(server.url(), auth=auth).json() == [value]
    assert client.submit("GET", server.url(), auth=auth).result(WAIT_S).json() == [value]


def test_the_auth_of_a_client_goes_with_each_request_unless_a_call_says_none(kit: Kit) -> None:
    server, client = kit.pair(handler=told, auth=("u", "p"))
    assert client.get(server.url()).json() == [BASIC_UP]
    assert client.get(server.url(), auth=("x", "y")).json() == ["Basic eDp5"]
    assert client.get(server.url(), auth=None).json() == []


def test_the_user_in_a_url_is_sent_as_a_header_and_shown_nowhere(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire, told)
    response = client.get(with_user(server.url("/x"), "u%40:p%2F"))
    assert response.json() == ["Basic dUA6cC8="]
    assert response.url == response.request.url == server.url("/x")


def test_an_at_sign_elsewhere_is_no_user(kit: Kit) -> None:
    server, client = kit.pair(handler=told)
    assert client.get(server.url("/@x?mail=a@b.test")).json() == []
    assert server.requests[0].target == "/@x?mail=a@b.test"


def test_a_header_of_the_call_goes_before_all_but_its_own_auth(kit: Kit, no_netrc: Path) -> None:
    server, client = kit.pair(handler=told, auth=("c", "c"))
    url, mine = with_user(server.url(), "u:p"), {"Authorization": "Mine"}
    assert client.get(url, headers=mine, auth=("x", "y")).json() == ["Basic eDp5"]
    assert client.get(url, headers=mine).json() == ["Mine"]
    assert client.get(url).json() == [BASIC_UP]


def test_a_callable_runs_in_the_callers_thread_and_may_change_all_of_the_request(kit: Kit, wire: Wire) -> None:
    seen: list[threading.Thread] = []

    def sign(request: hyperpool.Request) -> hyperpool.Request:
        seen.append(threading.current_thread())
        mark = hashlib.sha256(request.content).hexdigest()
        return dataclasses.replace(request, url=f"{request.url}?signed", headers=(*request.headers, ("X-Mark", mark)))

    server, client = kit.pair(wire, told)
    client.submit("POST", server.url("/x"), content=b"body", auth=sign).result(WAIT_S)
    request = server.requests[0]
    assert request.target == "/x?signed"
    assert ("x-mark", hashlib.sha256(b"body").hexdigest()) in request.headers
    assert seen == [threading.current_thread()]


@pytest.mark.parametrize("auth", ["user:password", ("u",), ("u", "p", "x"), 5, ("u", None)], ids=repr)
def test_what_is_no_auth_is_refused_and_not_shown(kit: Kit, auth: Any) -> None:
    error = raised(hyperpool.LocalProtocolError, lambda: kit.client().get("http://127.0.0.1:1/", auth=auth))
    assert "password'" not in str(error) and "user:" not in str(error)


def test_an_auth_that_forgets_to_return_the_request_is_told(kit: Kit) -> None:
    error = raised(
        hyperpool.LocalProtocolError, lambda: kit.client().get("http://127.0.0.1:1/", auth=lambda request: None)
    )
    assert "must return the request" in str(error)


# -- netrc -------------------------------------------------------------------------------------------------------------


def test_netrc_serves_where_nothing_else_is_said(kit: Kit, no_netrc: Path) -> None:
    no_netrc.write_text("machine 127.0.0.1 login u password p\nmachine localhost login u password p\n")
    server = kit.server(handler=told)
    assert kit.client().get(server.url()).json() == [BASIC_UP]
    assert kit.client(trust_env=False).get(server.url()).json() == []
    assert kit.client().get(server.url(), auth=None).json() == []
    assert kit.client(auth=("x", "y")).get(server.url()).json() == ["Basic eDp5"]
    assert kit.client(headers={"Authorization": "Mine"}).get(server.url()).json() == ["Mine"]


def test_the_default_of_netrc_is_for_what_was_asked_and_not_for_where_it_leads(kit: Kit, no_netrc: Path) -> None:
    no_netrc.write_text("default login u password p\n")
    other = kit.server(handler=told)
    server = kit.server(handler=inline(lambda request: Reply(302, (("location", other.url("/b")),))))
    response = kit.client().get(server.url("/a"))
    assert response.json() == []
    assert ("authorization", BASIC_UP) in server.requests[0].headers


@pytest.mark.parametrize("text", ["machine", "nonsense", "\x00\xff"])
def test_a_netrc_that_cannot_be_read_is_as_good_as_none(no_netrc: Path, text: str) -> None:
    no_netrc.write_bytes(text.encode("latin-1"))
    assert Netrc().auth("a.test") is None


# -- digest ------------------------------------------------------------------------------------------------------------


class Guard:
    """A server's side of digest authentication, written from RFC 7616."""

    def __init__(self, challenge: str, *, hash_name: str = "sha256", session: bool = False) -> None:
        self._challenge = challenge
        self._hash_name = hash_name
        self._session = session
        self.counts: list[str] = []

    def __call__(self, request: Request) -> Any:
        body = request.read()
        given = request.header("authorization") or ""
        if self._is_right(request, body, dict(re.findall(r'(\w+)="?([^",]+)', given))):
            return Reply(200, body=b"in:" + body)
        return Reply(401, (("www-authenticate", self._challenge),), b"who are you?")

    def _digest(self, *parts: str) -> str:
        return hashlib.new(self._hash_name, ":".join(parts).encode()).hexdigest()

    def _is_right(self, request: Request, body: bytes, given: dict[str, str]) -> bool:
        if given.get("nonce") != "n0nce" or given.get("uri") != request.target:
            return False
        secret = self._digest("u", "the realm", "p")
        if self._session:
            secret = self._digest(secret, "n0nce", given["cnonce"])
        middle = [given["nc"], given["cnonce"], given["qop"]] if "qop" in given else []
        asked = [request.method, request.target]
        if given.get("qop") == "auth-int":
            asked.append(hashlib.new(self._hash_name, body).hexdigest())
        self.counts.append(given.get("nc", ""))
        user = self._digest("u", "the realm") if "userhash=true" in self._challenge else "u"
        return (given["username"], given["response"]) == (
            user,
            self._digest(secret, "n0nce", *middle, self._digest(*asked)),
        )


REALM = 'Digest realm="the realm", nonce="n0nce"'
CHALLENGES = {
    "MD5 as in RFC 2069": (REALM, {"hash_name": "md5"}),
    "MD5": (f'{REALM}, qop="auth", algorithm=MD5, opaque="o"', {"hash_name": "md5"}),
    "MD5-sess": (f'{REALM}, qop="auth,auth-int", algorithm=MD5-sess', {"hash_name": "md5", "session": True}),
    "SHA-256": (f'{REALM}, qop="auth", algorithm=SHA-256', {}),
    "SHA-256-sess": (f'{REALM}, qop="auth", algorithm="SHA-256-sess"', {"session": True}),
    "SHA-512-256": (f'{REALM}, qop="auth", algorithm=SHA-512-256', {"hash_name": "sha512_256"}),
    "auth-int": (f'{REALM}, qop="auth-int", algorithm=SHA-256', {}),
    "auth-int, -sess": (f'{REALM}, qop="auth-int", algorithm=MD5-sess', {"hash_name": "md5", "session": True}),
    "userhash": (f'{REALM}, qop="auth", algorithm=SHA-256, userhash=true', {}),
    "the stronger of two": (f'{REALM}, qop="auth", algorithm=MD5, {REALM}, qop="auth", algorithm=SHA-256', {}),
    "beside basic": (f'Basic realm="x", {REALM}, qop="auth", algorithm=SHA-256', {}),
    "before basic": (f'{REALM}, qop="auth", algorithm=SHA-256, Basic realm="x"', {}),
}


@pytest.mark.parametrize("name", CHALLENGES)
@pytest.mark.parametrize("stream", [False, True])
def test_digest_answers_a_challenge_and_proves_itself_at_once_from_then_on(kit: Kit, name: str, stream: bool) -> None:
    challenge, options = CHALLENGES[name]
    server, client = kit.pair(handler=Guard(challenge, **options), auth=DigestAuth("u", "p"))
    first = client.submit("POST", server.url("/a?b=c"), content=b"x", stream=stream).result(WAIT_S)
    assert (first.status_code, first.read(), [one.status_code for one in first.history]) == (200, b"in:x", [401])
    second = client.get(server.url("/d"))
    assert (second.status_code, second.history) == (200, [])
    assert len(server.requests) == 3


def test_a_wrong_password_ends_with_the_401(kit: Kit, wire: Wire) -> None:
    guard = Guard(f'{REALM}, qop="auth", algorithm=SHA-256')
    server, client = kit.pair(wire, guard, auth=DigestAuth("u", "wrong"))
    assert client.get(server.url()).status_code == 401
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "challenge", ['Basic realm="x"', f"{REALM}, algorithm=SHA-3", f'{REALM}, qop="auth-conf"', "Digest", ""]
)
def test_a_challenge_that_cannot_be_met_is_the_response(kit: Kit, challenge: str) -> None:
    server, client = kit.pair(handler=Guard(challenge), auth=DigestAuth("u", "p"))
    assert client.get(server.url()).status_code == 401
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "challenge",
    ["Digest " + "a" * 60_000, 'Digest a="' + "b" * 60_000, "Digest, " * 7_000, "Digest a, " * 6_000],
    ids=["one name", "one string", "many schemes", "many challenges"],
)
def test_a_challenge_of_the_longest_head_takes_no_longer_than_its_length(challenge: str) -> None:
    # Each of these took half a minute, or seconds: the square of the length.
    assert DigestAuth("u", "p").answer(hyperpool.Request("GET", "http://a.test/"), challenged(challenge)) is None


def test_a_body_that_is_not_in_memory_cannot_be_protected_and_the_401_stands(kit: Kit, wire: Wire) -> None:
    guard = Guard(f'{REALM}, qop="auth-int", algorithm=SHA-256')
    server, client = kit.pair(wire, guard, auth=DigestAuth("u", "p"))
    assert client.post(server.url(), content=[b"a", b"b"]).status_code == 401
    assert client.post(server.url(), content=b"ab").status_code == 200
    assert client.post(server.url(), content=[b"a", b"b"]).status_code == 401
    assert client.post(server.url(), json={"a": 1}).status_code == 200


def challenged(challenge: str) -> Any:
    """As much of a 401 as a DigestAuth looks at."""

    class Challenged:
        headers = HTTPHeaderDict({"WWW-Authenticate": challenge})

    return Challenged()


def proof(url: str, user: str, password: str, challenge: str) -> dict[str, str]:
    """What a DigestAuth answers to a challenge."""

    request: Any = DigestAuth(user, password).answer(hyperpool.Request("GET", url), challenged(challenge))
    value = dict(request.headers)["Authorization"]
    return {name: quoted or plain for name, quoted, plain in re.findall(r'([\w*]+)=(?:"([^"]*)"|([^",\s]+))', value)}


RFC_7616_3_9_1 = (
    'Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm={}, '
    'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
)


@pytest.mark.parametrize(
    ("algorithm", "response"),
    [
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
    ],
)
def test_the_first_example_of_rfc_7616(monkeypatch: pytest.MonkeyPatch, algorithm: str, response: str) -> None:
    nonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
    monkeypatch.setattr("hyperpool.policy.digest._client_nonce", lambda: nonce)
    url = "http://www.example.org/dir/index.html"
    given = proof(url, "Mufasa", "Circle of Life", RFC_7616_3_9_1.format(algorithm))
    assert (given["response"], given["username"], given["qop"], given["nc"]) == (response, "Mufasa", "auth", "00000001")
    assert (given["cnonce"], given["uri"]) == (nonce, "/dir/index.html")


RFC_7616_3_9_2 = (
    'Digest realm="api@example.org", qop="auth", algorithm=SHA-512-256, charset=UTF-8, userhash={}, '
    'nonce="5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK", opaque="HRPCssKJSGjCrkzDg8OhwpzCiGPChXYjwrI2QmXDnsOS"'
)


def test_the_second_example_of_rfc_7616_with_its_erratum(monkeypatch: pytest.MonkeyPatch) -> None:
    """Erratum 4897: the figures that were printed are of SHA-512, cut off; these are of SHA-512/256."""
    monkeypatch.setattr("hyperpool.policy.digest._client_nonce", lambda: "NTg6RKcb9boFIAS3KrFK9BGeh+iDa/sm6jUMp2wds69v")
    url, user, password = "http://api.example.org/doe.json", "J\u00e4s\u00f8n Doe", "Secret, or not?"
    given = proof(url, user, password, RFC_7616_3_9_2.format("true"))
    assert given["username"] == "793263caabb707a56211940d90411ea4a575adeccb7e360aeb624ed06ece9b0b"
    assert given["response"] == "3798d4131c277846293534c3edc11bd8a5e4cdcbff78b05db9d95eeb1cec68a5"
    assert given["userhash"] == "true"
    named = proof(url, user, password, RFC_7616_3_9_2.format("false"))
    assert (named["username*"], "userhash" in named) == ("UTF-8''J%C3%A4s%C3%B8n%20Doe", False)


def test_a_digest_is_made_anew_for_where_a_redirect_leads_and_not_for_another_origin(kit: Kit) -> None:
    guard = Guard(f'{REALM}, qop="auth", algorithm=SHA-256')
    other = kit.server(handler=told)
    server, client = kit.pair(handler=guard, auth=DigestAuth("u", "p"))
    server.route("/a")(lambda request: Reply(302, (("location", "/b"),)))
    server.route("/c")(lambda request: Reply(302, (("location", other.url("/d")),)))
    assert client.get(server.url("/b")).status_code == 200
    assert [one.status_code for one in client.get(server.url("/a")).history] == [302]
    assert client.get(server.url("/c")).json() == []


def test_32_threads_prove_themselves_at_once_each_with_a_count_of_its_own(kit: Kit, wire: Wire) -> None:
    guard = Guard(f'{REALM}, qop="auth", algorithm=SHA-256')
    server, client = kit.pair(wire, guard, auth=DigestAuth("u", "p"))
    assert client.get(server.url()).status_code == 200
    with kit.threads(32) as threads:
        done = list(threads.map(lambda n: client.get(server.url(f"/{n}")).status_code, range(128)))
    assert done == [200] * 128
    assert sorted(guard.counts) == [f"{n:08x}" for n in range(1, 130)]


def test_32_threads_with_a_user_each_are_never_taken_for_one_another(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire, told)
    with kit.threads(32) as threads:
        done = list(threads.map(lambda n: client.get(server.url(), auth=BearerAuth(f"t{n}")).json(), range(128)))
    assert done == [[f"Bearer t{n}"] for n in range(128)]


def test_a_password_is_never_in_a_message(kit: Kit) -> None:
    client = kit.client(H2_TLS)
    error = raised(hyperpool.ConnectError, lambda: client.get("http://user:s3cret@127.0.0.1:1/"))
    assert "s3cret" not in str(error)
