"""``-a user:password`` and the user in a URL, as an Authorization field (RFC 7617)."""

from __future__ import annotations

import base64
import getpass
import sys
from urllib.parse import unquote

from hyperpool.urls import parse_url


def authorization(auth: str | None, url: str) -> str | None:
    """The field's value; None where nobody is named. Asks at the terminal for a password that is not given.

    Raises InvalidURL.
    """
    userinfo = parse_url(url).userinfo
    if auth is not None:
        user, colon, password = auth.partition(":")
        if not colon and sys.stdin is not None and sys.stdin.isatty():
            password = getpass.getpass(f"password of {user}: ")
    elif userinfo:
        user, _, password = (unquote(part) for part in userinfo.partition(":"))
    else:
        return None
    return "Basic " + base64.b64encode(f"{user}:{password}".encode("utf-8", "surrogateescape")).decode()
