"""Which domains a cookie may be for: none under which strangers register theirs, such as co.uk (RFC 6265 5.3).

The list of these is the one of publicsuffix.org, from the package publicsuffixlist, where that is installed; without it
nobody knows, and nothing is refused. The rule of thumb that http.cookiejar has for that would also refuse innocent
names, such as info and name below any country.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from http.cookiejar import DefaultCookiePolicy
from typing import Any


class Policy(DefaultCookiePolicy):
    """The policy of a jar of our own. Immutable; a jar that a program gives keeps its own."""

    def set_ok_domain(self, cookie: Any, request: Any) -> bool:
        """Whether a server may set a cookie for this domain."""
        if cookie.domain_specified and is_public_suffix(cookie.domain.lstrip(".")):
            return False
        return bool(super().set_ok_domain(cookie, request))


def is_public_suffix(domain: str) -> bool:
    """Whether everybody may register names below this domain; False where nobody knows."""
    return _check()(domain)


@functools.cache
def _check() -> Callable[[str], bool]:
    """Read once, by the first cookie that is for a domain: 0.1 s, and never on an I/O thread."""
    try:
        from publicsuffixlist import PublicSuffixList
    except ImportError:
        return lambda domain: False
    # A name that the list does not know is no suffix: "localhost", or a network of one's own.
    known = PublicSuffixList(accept_unknown=False)
    return lambda domain: bool(known.is_public(domain.lower()))
