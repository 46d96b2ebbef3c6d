"""Digest authentication (RFC 7616): a user and a password that are proven, not sent."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hyperpool.policy.auth import authorized
from hyperpool.values import Origin, Request, parse_url

if TYPE_CHECKING:
    from hyperpool.handoff.response import Response

# Origins whose challenge is remembered.
_REMEMBERED = 256

_PARAMETER = re.compile(r'([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_SCHEME = re.compile(r"(?:^|,)\s*digest\s+", re.IGNORECASE)
_NEXT_SCHEME = re.compile(r",\s*[A-Za-z][A-Za-z0-9-]*\s+[A-Za-z0-9_-]+\s*=")
_ESCAPED = re.compile(r"\\(.)")

# RFC 7616 3.3: in the order of preference, the strongest first.
_HASHES: dict[str, Callable[..., hashlib._Hash]] = {
    "SHA-256": hashlib.sha256,
    "MD5": lambda data: hashlib.md5(data, usedforsecurity=False),
}


@dataclass(frozen=True)
class Challenge:
    """What a server asks to be proven. Immutable but for the count, of which each request takes the next."""

    realm: str
    nonce: str
    opaque: str | None
    algorithm: str
    quality: bool
    count: Iterator[int]


class DigestAuth:
    """User and password by digest (RFC 7616): MD5 and SHA-256, with and without -sess, qop "auth" or none.

    Shared; each of its fields changes in one step. The first request to an origin goes out without proof and is sent
    again after the 401; from then on the proof goes with each request. Not made: qop "auth-int", userhash.
    """

    def __init__(self, user: str, password: str) -> None:
        self._user = user
        self._password = password
        self._challenges: dict[Origin, Challenge] = {}

    def __call__(self, request: Request) -> Request:
        challenge = self._challenges.get(parse_url(request.url).origin)
        return request if challenge is None else self._proven(request, challenge)

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

    def _proven(self, request: Request, challenge: Challenge) -> Request:
        hash_of = _HASHES[challenge.algorithm.removesuffix("-SESS")]

        def digest(*parts: str) -> str:
            return hash_of(":".join(parts).encode()).hexdigest()

        target = request.target or parse_url(request.url).target
        client_nonce, count = os.urandom(8).hex(), f"{next(challenge.count):08x}"
        secret = digest(self._user, challenge.realm, self._password)
        if challenge.algorithm.endswith("-SESS"):
            secret = digest(secret, challenge.nonce, client_nonce)
        asked = digest(request.method, target)
        between = (challenge.nonce, count, client_nonce, "auth") if challenge.quality else (challenge.nonce,)
        quoted = {"username": self._user, "realm": challenge.realm, "nonce": challenge.nonce, "uri": target}
        quoted["response"] = digest(secret, *between, asked)
        if challenge.opaque is not None:
            quoted["opaque"] = challenge.opaque
        fields = [f'{name}="{_quoted(value)}"' for name, value in quoted.items()]
        fields.append(f"algorithm={challenge.algorithm.replace('-SESS', '-sess')}")
        if challenge.quality:
            fields += [f'cnonce="{client_nonce}"', f"nc={count}", "qop=auth"]
        return authorized(request, "Digest " + ", ".join(fields))


def _digests(values: list[str]) -> Iterator[dict[str, str]]:
    """The parameters of each Digest challenge, of which one field may hold several, and other schemes between them."""
    for value in values:
        for found in _SCHEME.finditer(value):
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
    if algorithm.removesuffix("-SESS") not in _HASHES or (qualities and "auth" not in qualities):
        return None
    if "nonce" not in given:
        return None
    session = algorithm.endswith("-SESS")
    return Challenge(
        given.get("realm", ""),
        given["nonce"],
        given.get("opaque"),
        algorithm,
        bool(qualities) or session,
        itertools.count(1),
    )


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')
