"""What may be typed: options, METHOD, URL and items, and the help that teaches them.

Words that are no options may stand anywhere between them, as in HTTPie. The first is METHOD where it can be nothing
else; the next is URL; the others are items.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from hyperpool.cli.items import Items, parse_items
from hyperpool.cli.statuses import MEANING
from hyperpool.cli.words import FileProblem, UsageError
from hyperpool.values import Timeout

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://").match  # RFC 3986 3.1
_LOCAL = re.compile(r":(?!:)([0-9]*)(.*)", re.DOTALL).fullmatch
_NO_UTF8 = re.compile("[\udc80-\udcff]")
_UPPER_VERB = re.compile(r"[A-Z][A-Z_-]*").fullmatch
_VERBS = frozenset(["get", "head", "options", "post", "put", "patch", "delete", "query", "trace", "propfind"])
_NO, _YES = frozenset(("no", "false", "0")), frozenset(("yes", "true", "1"))

USAGE = "hyperpool [OPTION ...] [METHOD] URL [ITEM ...]"

_ABOUT = """\
Send one HTTP request, over HTTP/2 where the server speaks it, and show the answer.

  hyperpool example.org/get                       GET over https://
  hyperpool :3000/users                           GET http://localhost:3000/users
  hyperpool example.org/users name=Ann age:=41    POST {"name": "Ann", "age": 41}
  hyperpool -f example.org/login user=ann         POST a form
  hyperpool PUT example.org/pictures/1 @cat.jpg   PUT a file as it is
  hyperpool example.org/search q=='red fox'       GET /search?q=red+fox
  hyperpool -v example.org Accept:text/html       with request and response heads
  hyperpool -o page.html example.org              save the body, with a progress bar
  hyperpool -C -o big.iso example.org/big.iso     go on with a download that was cut
  hyperpool example.org/items | jq .              into a pipe goes the body, byte for byte

METHOD is GET, or POST where there is something to send. A URL without a scheme means https://: what is typed in haste
should not travel in the clear. Only :PORT/PATH means http://localhost, where nobody listens in.
"""

_ITEMS = """\
items:
  Name:value          a header; Name: removes one that is sent by default, "Name;" sends it empty
  name==value         a query parameter
  name=value          a field of the JSON object (or of the form, with --form)
  name:=json          a JSON field that is no string: 41, true, [1,2], {"a":null}
  name=@file          a field with the text of a file; :=@ its JSON, ==@ and :@ likewise for queries and headers
  name@file           a file to upload in a multipart form; name@file;type=text/csv says of what type it is
  @file               the whole body, as it is; @- is standard input
  A backslash takes the meaning of a separator in a name away: 'a\\:b=c' is the field "a:b", 'a\\\\=b' the field "a\\".
  Standard input is the body where it is a pipe or file and no item makes one (GET, HEAD, DELETE, OPTIONS and
  TRACE take it only as @-).
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What the command line asks for. Immutable. ``method`` is None where it is to be inferred."""

    method: str | None
    url: str
    items: Items
    form: bool
    ignore_stdin: bool
    show_request: bool
    show_heads: bool | None
    show_body: bool
    output: str | None
    goes_on: bool
    client_options: dict[str, Any]
    auth: str | None
    follow: bool
    check_status: bool
    stats: bool
    debug: bool


class _Parser(argparse.ArgumentParser):
    """argparse, but for its way to fail: an error is one line, and `run` writes it."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (hyperpool --help shows how)")


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command line; its help is for people who have not read the documentation."""
    statuses = "\n".join(f"  {status.value:<4} {meaning}" for status, meaning in MEANING.items())
    parser = _Parser(
        prog="hyperpool",
        usage=USAGE,
        description=_ABOUT,
        epilog=f"{_ITEMS}\nexit status:\n{statuses}\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
        # An abbreviation would change its meaning with the next option that begins alike.
        allow_abbrev=False,
    )
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    _add_what_is_sent(parser.add_argument_group("what is sent"))
    _add_what_is_shown(parser.add_argument_group("what is shown"))
    _add_the_connection(parser.add_argument_group("the connection"))
    _add_the_rest(parser.add_argument_group("else"))
    return parser


def _add_what_is_sent(group: Any) -> None:
    group.add_argument("-j", "--json", action="store_true", help="fields make a JSON object (that is the default)")
    group.add_argument("-f", "--form", action="store_true", help="fields make a form: urlencoded, multipart with files")
    group.add_argument("-a", "--auth", metavar="USER[:PASS]", help="basic authentication; PASS is asked for if absent")
    group.add_argument("-F", "--follow", action="store_true", help="follow redirects, up to 20 of them")
    group.add_argument("-I", "--ignore-stdin", action="store_true", help="do not send standard input")


def _add_what_is_shown(group: Any) -> None:
    group.add_argument("-v", "--verbose", action="store_true", help="the request as it was sent, and both heads")
    group.add_argument("-h", "--headers", action="store_true", help="the response's head only")
    group.add_argument("-b", "--body", action="store_true", help="the response's body only")
    group.add_argument("-o", "--output", metavar="FILE", help="save the body in FILE; - is standard output")
    group.add_argument(
        "-C", "--continue", dest="goes_on", action="store_true", help="with -o: go on with what a try left in FILE.part"
    )
    group.add_argument("--stats", action="store_true", help="a table of versions, times and connections, on stderr")
    group.add_argument("--debug", action="store_true", help="HTTP/2 frames as they come and go, on stderr")


def _add_the_connection(group: Any) -> None:
    version = group.add_mutually_exclusive_group()
    version.add_argument("--h2", action="store_true", help="HTTP/2 only; on http:// without asking (prior knowledge)")
    version.add_argument("--http1.1", dest="http1", action="store_true", help="HTTP/1.1 only")
    group.add_argument("--timeout", metavar="SECONDS", help="the longest silence in any phase; 0 waits for ever")
    group.add_argument(
        "--verify", metavar="yes|no|system|PATH", default="yes", help="whom to trust: a CA file or folder"
    )
    group.add_argument("--cert", metavar="FILE", help="client certificate (PEM), with its key or beside --cert-key")
    group.add_argument("--cert-key", metavar="FILE", help="the key of --cert")
    group.add_argument("--proxy", metavar="URL", help="http://, https:// or socks5:// proxy")


def _add_the_rest(group: Any) -> None:
    group.add_argument("--check-status", action="store_true", help="exit with 3, 4 or 5 for 3xx, 4xx and 5xx")
    group.add_argument("--version", action="store_true", help="show the version and exit")
    group.add_argument("--help", action="store_true", help="show this and exit")


def read_command(parser: argparse.ArgumentParser, given: argparse.Namespace) -> Command:
    """What the parsed words ask for. Raises UsageError, and FileProblem for a certificate that is not there."""
    method, typed_url, words = split_words(given.words)
    return Command(
        method=method,
        url=complete_url(typed_url),
        items=parse_items(words),
        form=_form(given),
        ignore_stdin=given.ignore_stdin,
        show_request=given.verbose,
        show_heads=True if given.verbose or given.headers else False if given.body else None,
        show_body=given.body or not given.headers,
        output=given.output,
        goes_on=_goes_on(given, method),
        client_options=_client_options(given),
        auth=given.auth,
        follow=given.follow,
        check_status=given.check_status,
        stats=given.stats,
        debug=given.debug,
    )


def split_words(words: Sequence[str]) -> tuple[str | None, str, Sequence[str]]:
    """METHOD (None where there is none), URL and items.

    A first word that could be a host as well, such as "localhost", is no METHOD: those are upper case or well known.
    """
    if not words:
        raise UsageError("a URL is missing (hyperpool --help shows how)")
    if len(words) > 1 and (_UPPER_VERB(words[0]) or words[0] in _VERBS):
        return words[0].upper(), words[1], words[2:]
    return None, words[0], words[1:]


def complete_url(typed: str) -> str:
    """An absolute URL of what was typed: ``:3000/x`` is on this machine, and a bare host is asked over TLS.

    Octets that are no UTF-8, which are surrogates here (PEP 383), are percent-encoded.
    """
    typed = _NO_UTF8.sub(lambda octet: f"%{ord(octet[0]) - 0xDC00:02X}", typed)
    if _SCHEME(typed):
        return typed
    typed = typed.removeprefix("://")
    if local := _LOCAL(typed):
        port, rest = local.groups()
        return f"http://localhost{':' if port else ''}{port}{rest}"
    return f"https://{typed}"


def _form(given: argparse.Namespace) -> bool:
    if given.json and given.form:
        raise UsageError("--json and --form exclude each other")
    return bool(given.form)


def _goes_on(given: argparse.Namespace, method: str | None) -> bool:
    if given.goes_on and given.output in (None, "-"):
        raise UsageError("--continue needs -o FILE")
    if given.goes_on and method not in (None, "GET"):
        raise UsageError(f"--continue is for GET, not for {method}")
    return bool(given.goes_on)


def _client_options(given: argparse.Namespace) -> dict[str, Any]:
    options: dict[str, Any] = {"verify": _verify(given.verify), "http1": not given.h2, "http2": not given.http1}
    if given.cert_key and not given.cert:
        raise UsageError("--cert-key needs --cert")
    if given.cert:
        files = [_existing(path) for path in (given.cert, given.cert_key) if path]
        options["cert"] = files[0] if len(files) == 1 else tuple(files)
    if given.timeout is not None:
        options["timeout"] = _timeout(given.timeout)
    if given.proxy is not None:
        options["proxy"] = given.proxy
    return options


def _verify(given: str) -> Any:
    if given.lower() in _YES:
        return True
    if given.lower() in _NO:
        return False
    return given if given == "system" else _existing(given)


def _existing(path: str) -> str:
    if not Path(path).exists():
        raise FileProblem(f"{path} does not exist")
    return path


def _timeout(given: str) -> Timeout:
    """Seconds of silence for each phase, not for the whole: a large download that comes along is no fault."""
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise UsageError(f"--timeout takes seconds, such as 2.5, not {given!r}")
    limit_s = seconds or None
    return Timeout(pool=limit_s, connect=limit_s, write=limit_s, read=limit_s)
