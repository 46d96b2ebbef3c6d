"""Digest authentication (RFC 7616): a user and a password that are proven, not sent."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hyperpool.policy.auth import authorized
from hyperpool.urls import Origin, parse_url
from hyperpool.values import Request

if TYPE_CHECKING:
    from hyperpool.handoff.response import Response

# Origins whose challenge is remembered.
_REMEMBERED = 256

# Of challenges in one field: servers make one for each algorithm, of which there are six.
_MOST_CHALLENGES = 16

# A name begins where no other character of one stands before: else a long one would be tried from each of its own.
_PARAMETER = re.compile(r'(?<![A-Za-z0-9_-])([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_SCHEME = re.compile(r"(?:^|,)\s*digest\s+", re.IGNORECASE)
_NEXT_SCHEME = re.compile(r",\s*[A-Za-z][A-Za-z0-9-]*\s+[A-Za-z0-9_-]+\s*=")
_ESCAPED = re.compile(r"\\(.)")

# RFC 7616 3.3: in the order of preference, the strongest first.
_HASHES: dict[str, Callable[..., hashlib._Hash]] = {
    "SHA-512-256": lambda data: hashlib.new("sha512_256", data),
    "SHA-256": hashlib.sha256,
    "MD5": lambda data: hashlib.md5(data, usedforsecurity=False),
}


@dataclass(frozen=True)
class Challenge:
    """What a server asks to be proven. Immutable but for the count, of which each request takes the next.

    ``quality``: qop, or "" where the server knows none. ``hides_user``: userhash. ``utf8``: the server says charset.
    """

    realm: str
    nonce: str
    opaque: str | None
    algorithm: str
    quality: str
    hides_user: bool
    utf8: bool
    count: Iterator[int]


class DigestAuth:
    """User and password by digest (RFC 7616): MD5, SHA-256 and SHA-512-256, with and without -sess, and userhash.

    Shared; each of its fields changes in one step. The first request to an origin goes out without proof and is sent
    again after the 401; from then on the proof goes with each request. Of qop, "auth" is taken before "auth-int", which
    protects the body too and so needs one in memory: with another body, the 401 stands.
    """

    def __init__(self, user: str, password: str) -> None:
        self._user = user
        self._password = password
        self._challenges: dict[Origin, Challenge] = {}

    def __call__(self, request: Request) -> Request:
        challenge = self._challenges.get(parse_url(request.url).origin)
        proven = None if challenge is None else self._proven(request, challenge)
        return request if proven is None else proven

    def answer(self, request: Request, response: Response) -> Request | None:
        """The request with the proof that a 401 asks for; None where it asks for nothing that this can do."""
        challenges = [_challenge(each) for each in _digests(response.headers.getlist("www-authenticate"))]
        known = [each for each in challenges if each is not None]
        if not known:
            return None
        chosen = min(known, key=lambda each: list(_HASHES).index(each.algorithm.removesuffix("-SESS")))
        if len(self._challenges) >= _REMEMBERED:
            self._challenges.clear()
        self._challenges[parse_url(request.url).origin] = chosen
        return self._proven(request, chosen)

    def _proven(self, request: Request, challenge: Challenge) -> Request | None:
        """The request with its proof; None where its body cannot be part of that."""
        hash_of = _HASHES[challenge.algorithm.removesuffix("-SESS")]

        def digest(*parts: str) -> str:
            return hash_of(":".join(parts).encode()).hexdigest()

        quality, target = challenge.quality, request.target or parse_url(request.url).target
        asked = [request.method, target]
        if quality == "auth-int":
            body = _in_memory(request.content)
            if body is None:
                return None
            asked.append(hash_of(body).hexdigest())
        client_nonce, count = _client_nonce(), f"{next(challenge.count):08x}"
        secret = digest(self._user, challenge.realm, self._password)
        if challenge.algorithm.endswith("-SESS"):
            secret = digest(secret, challenge.nonce, client_nonce)
        between = (challenge.nonce, count, client_nonce, quality) if quality else (challenge.nonce,)
        quoted = {"realm": challenge.realm, "nonce": challenge.nonce, "uri": target}
        quoted["response"] = digest(secret, *between, digest(*asked))
        if challenge.opaque is not None:
            quoted["opaque"] = challenge.opaque
        fields = self._user_fields(challenge, digest)
        fields += [f'{name}="{_quoted(value)}"' for name, value in quoted.items()]
        fields.append(f"algorithm={challenge.algorithm.replace('-SESS', '-sess')}")
        if quality:
            fields += [f'cnonce="{client_nonce}"', f"nc={count}", f"qop={quality}"]
        return authorized(request, "Digest " + ", ".join(fields))

    def _user_fields(self, challenge: Challenge, digest: Callable[..., str]) -> list[str]:
        """Who it is: as a digest where the server wants that (RFC 7616 3.4.4), else by name."""
        if challenge.hides_user:
            return [f'username="{digest(self._user, challenge.realm)}"', "userhash=true"]
        if challenge.utf8 and not self._user.isascii():
            from urllib.parse import quote

            return [f"username*=UTF-8''{quote(self._user, safe='')}"]
        return [f'username="{_quoted(self._user)}"']


def _client_nonce() -> str:
    return os.urandom(8).hex()


def _in_memory(content: Any) -> bytes | None:
    """The body's bytes; None for one that is still to be read."""
    if content is None:
        return b""
    if isinstance(content, str):
        return content.encode()
    return bytes(content) if isinstance(content, (bytes, bytearray, memoryview)) else None


def _digests(values: list[str]) -> Iterator[dict[str, str]]:
    """The parameters of each Digest challenge, of which one field may hold several, and other schemes between them."""
    for value in values:
        for found in itertools.islice(_SCHEME.finditer(value), _MOST_CHALLENGES):
            rest = value[found.end() :]
            end = _NEXT_SCHEME.search(rest)
            part = rest[: end.start()] if end else rest
            yield {
                name.lower(): _ESCAPED.sub(r"\1", quoted) if quoted else plain
                for name, quoted, plain in _PARAMETER.findall(part)
            }


def _challenge(given: dict[str, str]) -> Challenge | None:
    algorithm = given.get("algorithm", "MD5").upper()
    qualities = {each.strip().lower() for each in given.get("qop", "").split(",")} - {""}
    quality = next((one for one in ("auth", "auth-int") if one in qualities), "")
    if "nonce" not in given or not _is_known(algorithm.removesuffix("-SESS")) or (qualities and not quality):
        return None
    if algorithm.endswith("-SESS"):
        quality = quality or "auth"
    return Challenge(
        given.get("realm", ""),
        given["nonce"],
        given.get("opaque"),
        algorithm,
        quality,
        given.get("userhash", "").lower() == "true",
        given.get("charset", "").upper() == "UTF-8",
        itertools.count(1),
    )


def _is_known(algorithm: str) -> bool:
    try:
        return bool(_HASHES[algorithm](b""))
    except (KeyError, ValueError):  # of SHA-512-256, not every OpenSSL has it
        return False


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')
