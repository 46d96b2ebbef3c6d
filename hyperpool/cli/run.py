"""One run: from the words of the command line to an exit status. Whatever happens, nothing of it is left behind.

Every failure ends in one line on standard error and its own exit status (`statuses`). Ctrl-C resets the stream, closes
the connection and leaves a clean line. A reader that went away (``| head``) ends the run without a word.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from hyperpool._version import __version__
from hyperpool.cli import content, download, layout
from hyperpool.cli.arguments import Command, make_parser, read_command
from hyperpool.cli.content import Body
from hyperpool.cli.credentials import authorization
from hyperpool.cli.output import Output, say
from hyperpool.cli.stats import Clock, table
from hyperpool.cli.statuses import Status, of_error, of_response
from hyperpool.cli.words import FileProblem, UsageError
from hyperpool.client import Client
from hyperpool.errors import HyperpoolError
from hyperpool.process import FOR_ALL, FOR_TLS, load
from hyperpool.protocol.fields import prepare_head
from hyperpool.urls import parse_url

if TYPE_CHECKING:
    from hyperpool.handoff.response import Response
    from hyperpool.values import Request

# How long open connections may take to say good-bye: the answer is here by then.
CLOSE_S = 0.2

# These carry no content that a server would read (RFC 9110 9.3). In `while read url; do
# hyperpool GET $url; done < urls` the body would else be the list.
_BODILESS = frozenset(("GET", "HEAD", "DELETE", "OPTIONS", "TRACE"))

# Errors are worded for programs; at a prompt the same things have other names.
_OPTIONS = (
    ("http1= and http2=", "--h2 and --http1.1"),
    ("http2=False", "--http1.1"),
    ("as verify=", "with --verify"),
    ("as cert=", "with --cert"),
    ("(cert=)", "(--cert)"),
    ("verify=", "--verify "),
    ("cert=", "--cert "),
    ("Timeout.", "the timeout "),
)

logger = logging.getLogger("hyperpool.cli")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line (``sys.argv`` unless given); the exit status, of `statuses.Status`."""
    words = sys.argv[1:] if argv is None else argv
    output = Output(sys.stdout)
    debug = "--debug" in words
    try:
        return _run(words, output)
    except KeyboardInterrupt as interrupt:
        return _interrupted(output, interrupt)
    except HyperpoolError as error:
        return _failed(error, of_error(error), debug)
    except UsageError as error:
        return _failed(error, Status.USAGE, debug)
    except FileProblem as error:
        return _failed(error, Status.FILE, debug)
    except BrokenPipeError:
        return Status.PIPE_CLOSED
    except Exception as error:  # a fault of ours, which must not look like one of the server's
        return _failed(RuntimeError(f"{type(error).__name__}: {error}"), Status.OTHER, debug)


def _run(words: Sequence[str], output: Output) -> int:
    parser = make_parser()
    given = parser.parse_intermixed_args(list(words))
    if given.help or given.version:
        output.text(parser.format_help() if given.help else f"hyperpool {__version__}\n")
        return Status.OK
    command = read_command(parser, given)
    clock = Clock()
    with ExitStack() as files, _debugging(command.debug), _client(command, clock) as client:
        return _Run(command, output, client, files, clock).ask()


def _failed(error: Exception, status: Status, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    words = str(error)
    for argument, option in _OPTIONS:
        words = words.replace(argument, option)
    say(words)
    return status


def _interrupted(output: Output, interrupt: KeyboardInterrupt) -> int:
    # The terminal has written ^C where the cursor was: what comes next begins a line of its own.
    if sys.stderr is not None and sys.stderr.isatty():
        sys.stderr.write("\n")
    say("interrupted" + "".join(interrupt.args))
    return Status.INTERRUPTED


@contextmanager
def _client(command: Command, clock: Clock) -> Iterator[Client]:
    events = {"connection_opened": clock.connections.append} if command.stats else None
    try:
        client = Client(**command.client_options, follow_redirects=command.follow, events=events)
    except (TypeError, ValueError) as error:  # what the client says about a proxy's URL, for one
        raise UsageError(str(error)) from error
    try:
        yield client
    finally:
        client.close(grace_s=CLOSE_S)


@contextmanager
def _debugging(wanted: bool) -> Iterator[None]:
    """Let hyperpool's loggers write to standard error, frames among them."""
    if not wanted:
        yield
        return
    root, listener = logging.getLogger("hyperpool"), logging.StreamHandler()
    listener.setFormatter(logging.Formatter("%(relativeCreated)7.0f ms %(name)s: %(message)s"))
    level = root.level
    root.addHandler(listener)
    root.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        root.removeHandler(listener)
        root.setLevel(level)


@contextmanager
def _saying_what_is_left(path: str) -> Iterator[None]:
    try:
        yield
    except (HyperpoolError, FileProblem, KeyboardInterrupt) as error:
        error.args = (f"{error}{download.left_behind(path)}",)
        raise


class _Run:
    """One request and what is shown of it. Owned by the thread that runs it."""

    def __init__(self, command: Command, output: Output, client: Client, files: ExitStack, clock: Clock) -> None:
        self._command = command
        self._clock = clock
        self._output = output
        self._client = client
        self._body = self._make_body(files)
        self._size_bytes: int | None = None

    def ask(self) -> int:
        """Send the request and show the answer; the exit status."""
        command = self._command
        method = command.method or ("POST" if self._body.content is not None else "GET")
        options = {"params": content.query_pairs(command.items), "headers": self._headers()}
        self._load_what_it_needs()
        clock = self._clock
        clock.begin()
        if command.goes_on:
            return self._go_on(options)
        with self._client.stream(method, command.url, content=self._body.content, **options) as response:
            clock.head()
            self._show(response)
            clock.end()
            self._show_stats(response)
        return self._status(response)

    def _load_what_it_needs(self) -> None:
        """Before the clock runs: what the interpreter does once is no waiting for the server."""
        load("requests", FOR_ALL)
        if parse_url(self._command.url).origin.scheme == "https":
            load("TLS", FOR_TLS)

    def _go_on(self, options: dict[str, Any]) -> int:
        command = self._command
        if self._body.content is not None or command.output is None:
            raise UsageError("--continue is for GET: leave the body out")
        with _saying_what_is_left(command.output):
            done = download.go_on(self._client, command.url, command.output, head=self._clock.head, **options)
        self._clock.end()
        self._size_bytes = done.size_bytes - done.resumed_bytes
        if done.resumed_bytes:
            say(f"went on after the {done.resumed_bytes:,} bytes of {command.output}.part")
        self._show_heads(done.response)
        self._show_stats(done.response)
        return Status.OK

    def _show_stats(self, response: Response) -> None:
        if self._command.stats:
            sys.stderr.write(table(response, self._client.pool.stats(), self._clock, size_bytes=self._size_bytes))

    def _make_body(self, files: ExitStack) -> Body:
        command = self._command
        descriptor = content.stdin_descriptor(sys.stdin)
        asked_for = command.items.whole_body == "-"
        if asked_for and descriptor is None:
            raise UsageError("@- is standard input, but that is no pipe and no file")
        if not asked_for:
            if command.items.has_body:
                return content.body_of_items(command.items, form=command.form, files=files)
            if descriptor is None or command.ignore_stdin or command.method in _BODILESS:
                return content.NOTHING
        assert descriptor is not None
        return content.body_of_stdin(descriptor, form=command.form, files=files, note=say)

    def _headers(self) -> list[tuple[str, str | None]]:
        """Header fields: those of the items win over those that follow from something else."""
        command = self._command
        given = content.header_fields(command.items)
        named = {name.lower() for name, _ in given}
        implied = {
            "Content-Type": self._body.content_type,
            "Authorization": authorization(command.auth, command.url),
            # What is saved is counted against Content-Length: a coded body has another size than its file.
            "Accept-Encoding": "identity" if command.output is not None else None,
            "Accept": "application/json, */*;q=0.5" if self._body.content_type == content.JSON else None,
        }
        return [(name, value) for name, value in implied.items() if value and name.lower() not in named] + given

    # -- what is shown ---------------------------------------------------------------------------------------------

    def _show(self, response: Response) -> None:
        command = self._command
        self._show_heads(response)
        if command.show_body:
            self._size_bytes = self._show_body(response)
        if command.show_request and response.trailers:
            self._output.head(layout.trailer_lines(response))

    def _show_heads(self, response: Response) -> None:
        command = self._command
        shows_heads = self._output.is_terminal if command.show_heads is None else command.show_heads
        if command.show_request:
            self._show_request(response.request, response.http_version)
        if response.http_version != "HTTP/2":
            # Frames are HTTP/2's; of HTTP/1.1 there is this to tell.
            logger.debug("-> %s %s %s", response.request.method, response.url, response.http_version)
            logger.debug("<- %s %d", response.http_version, response.status_code)
        if shows_heads:
            self._output.head(layout.response_lines(response))

    def _show_request(self, request: Request, version: str) -> None:
        head = prepare_head(
            method=request.method,
            url=parse_url(request.url),
            headers=request.headers,
            # A redirect may have made GET of POST: then no body went with this request.
            body_bytes=0 if request.content is None else self._body.size_bytes,
        )
        self._output.head(layout.request_lines(head, version))
        if isinstance(request.content, bytes) and self._command.show_body:
            self._output.body_bytes(request.content, self._body.content_type or "")
            self._output.end_line()
            self._output.write(b"\n")

    def _show_body(self, response: Response) -> int | None:
        path = self._command.output
        if path is None:
            return self._output.body(response)
        if self._command.check_status and of_response(response.status_code):
            # FILE would be the page that says what went wrong.
            return None
        if path == "-":
            return self._output.copy(response)
        with _saying_what_is_left(path):
            return download.save(response, path)

    def _status(self, response: Response) -> int:
        if not self._command.check_status:
            return Status.OK
        status = of_response(response.status_code)
        if status:
            say(f"the answer is {response.status_code} {response.reason}".rstrip())
        return status
