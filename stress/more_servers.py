"""Further real servers, each serving the tree of `stress.servers`: h2o, Caddy, Apache, lighttpd, HAProxy, Node, Go,
Hypercorn.

`/bytes/N` and `/echo` are the same everywhere; `/trailers` answers "body" with the trailer ``x-checksum: 42`` where
`TRAILERS` says that the server can. Where `RELOADS` names a server, `reload` makes it take up its configuration anew
without dropping a request, as an operator would.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from stress.servers import (
    KEEPALIVE_REQUESTS,
    RELOAD,
    Command,
    Served,
    ServerMissing,
    find_program,
    folder_and_tree,
    nginx,
    run,
)

TRAILERS = frozenset({"node", "go", "hypercorn"})
# Not Apache: it announces its end (GOAWAY with last_stream_id 2**31-1) and closes soon after without naming the last
# stream that it processed, so that a client cannot know which requests to send again.
RELOADS = frozenset({"nginx-master", "haproxy", "caddy"})
# Apache ends connections on which requests are under way: over HTTP/2 (GOAWAY with error 0xfffffc7a) when a client
# resets a stream whose answer is about to go out, over HTTP/1.1 between two requests when its workers are few.
LOSING = frozenset({"apache"})
# Its CGI refuses a body of unknown length: 411.
NEEDS_LENGTH = frozenset({"lighttpd"})

_APACHE_MODULES = Path("/usr/lib/apache2/modules")
_LIGHTTPD_OPENSSL = Path("/usr/lib/lighttpd/mod_openssl.so")

# For servers that answer `/echo` by CGI (RFC 3875). Apache hands over the whole body before it reads a word.
_ECHO = """#!/bin/sh
body=$(mktemp)
cat > "$body"
printf 'Content-Type: text/plain\\r\\n\\r\\n'
cat "$body"
rm -f "$body"
"""


def reload(served: Served) -> None:
    """Ask for a graceful restart; returns at once, but for Caddy, whose own command waits until it is done."""
    if served.name == "caddy":
        config = served.log.parent / "Caddyfile"
        # The address of its control socket stands in the file.
        subprocess.run(
            [find_program("caddy", package="caddy"), "reload", "--force", "--config", str(config)],
            check=True,
            capture_output=True,
            env=_home(config.parent),
        )
        return
    meaning = {"nginx-master": RELOAD, "haproxy": signal.SIGUSR2}
    served.process.send_signal(meaning[served.name])


def _config(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def _home(folder: Path) -> dict[str, str]:
    """An environment in which programs write nowhere but into the folder."""
    return {**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}


def _user() -> str:
    return "root" if os.geteuid() == 0 else ""


@contextlib.contextmanager
def nginx_with_master(*, keepalive_requests: int = KEEPALIVE_REQUESTS) -> Iterator[Served]:
    """nginx with a master process, which `reload` needs."""
    with nginx(name="nginx-master", master=True, keepalive_requests=keepalive_requests) as served:
        yield served


# -- h2o ---------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def h2o() -> Iterator[Served]:
    """h2o, which answers `/echo` by a handler in mruby."""
    program = find_program("h2o", package="h2o")
    with folder_and_tree() as (folder, root):

        def command(port: int) -> Sequence[str]:
            config = f"""
listen:
  host: 127.0.0.1
  port: {port}
  ssl: {{certificate-file: {folder}/server.pem, key-file: {folder}/server.key}}
hosts:
  default:
    paths:
      /echo:
        mruby.handler: |
          Proc.new {{|env| [200, {{}}, [env["rack.input"] ? env["rack.input"].read : ""]]}}
      /:
        file.dir: {root}
{f"user: {_user()}" if _user() else ""}
num-threads: 1
"""
            return [program, "-c", str(_config(folder, "h2o.conf", config))]

        yield from run("h2o", folder, root, command)


# -- Caddy -------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def caddy() -> Iterator[Served]:
    """Caddy; its control socket lies in its folder."""
    program = find_program("caddy", package="caddy")
    with folder_and_tree() as (folder, root):

        def command(port: int) -> Sequence[str]:
            config = f"""
{{
    auto_https off
    admin unix/{folder}/admin.sock
    storage file_system {folder}/storage
}}
https://localhost:{port} {{
    bind 127.0.0.1
    tls {folder}/server.pem {folder}/server.key
    respond /echo "{{http.request.body}}"
    root * {root}
    file_server
}}
"""
            path = _config(folder, "Caddyfile", config)
            return ["env", f"HOME={folder}", f"XDG_DATA_HOME={folder}", program, "run", "--config", str(path)]

        yield from run("caddy", folder, root, command)


# -- Apache ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def apache(*, keepalive_requests: int = KEEPALIVE_REQUESTS) -> Iterator[Served]:
    """Apache httpd with mod_http2; a CGI script answers `/echo`."""
    program = find_program("apache2", package="apache2")
    with folder_and_tree() as (folder, root):
        names = ["mpm_event", "authz_core", "ssl", "http2", "mime", "dir", "alias", "cgid"]
        script = _config(folder, "echo.sh", _ECHO)
        script.chmod(0o755)
        # Started by root, its children take another user, or serve nothing.
        identity = "User www-data\nGroup www-data" if os.geteuid() == 0 else ""
        modules = "\n".join(f"LoadModule {name}_module {_APACHE_MODULES}/mod_{name}.so" for name in names)

        def command(port: int) -> Sequence[str]:
            config = f"""
ServerRoot {folder}
ServerName localhost
{identity}
PidFile {folder}/pid
DefaultRuntimeDir {folder}
Listen 127.0.0.1:{port}
{modules}
TypesConfig /etc/mime.types
ErrorLog {folder}/log
Protocols h2 http/1.1
MaxKeepAliveRequests {keepalive_requests}
KeepAliveTimeout 60
DocumentRoot {root}
<Directory {root}>
    Require all granted
</Directory>
ScriptSock {folder}/cgi.sock
ScriptAlias /echo {script}
<Location /echo>
    Require all granted
</Location>
SSLEngine on
SSLCertificateFile {folder}/server.pem
SSLCertificateKeyFile {folder}/server.key
"""
            path = _config(folder, "apache.conf", config)
            # Its children take another user: they must be able to read, and the tree is nobody's secret.
            os.chmod(folder, 0o755)
            return [program, "-DFOREGROUND", "-f", str(path)]

        yield from run("apache", folder, root, command)


# -- lighttpd ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def lighttpd(*, keepalive_requests: int = KEEPALIVE_REQUESTS) -> Iterator[Served]:
    """lighttpd; a CGI script answers `/echo`."""
    program = find_program("lighttpd", package="lighttpd")
    if not _LIGHTTPD_OPENSSL.exists():
        raise ServerMissing("lighttpd has no mod_openssl: apt-get install lighttpd-mod-openssl")
    with folder_and_tree() as (folder, root):
        script = _config(folder, "echo.sh", _ECHO)
        both = (folder / "server.pem").read_bytes() + (folder / "server.key").read_bytes()
        (folder / "both.pem").write_bytes(both)
        (root / "echo").write_text("")

        def command(port: int) -> Sequence[str]:
            config = f"""
server.port = {port}
server.bind = "127.0.0.1"
server.document-root = "{root}"
server.upload-dirs = ("{folder}")
server.modules = ("mod_openssl", "mod_alias", "mod_cgi")
server.max-keep-alive-requests = {keepalive_requests}
ssl.engine = "enable"
ssl.pemfile = "{folder}/both.pem"
$HTTP["url"] == "/echo" {{
    alias.url = ("/echo" => "{script}")
    cgi.assign = (".sh" => "/bin/sh")
}}
"""
            return [program, "-D", "-f", str(_config(folder, "lighttpd.conf", config))]

        yield from run("lighttpd", folder, root, command)


# -- HAProxy -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def haproxy() -> Iterator[Served]:
    """HAProxy, speaking HTTP/2 to us and HTTP/1.1 to an nginx behind it."""
    program = find_program("haproxy", package="haproxy")
    with nginx(h2=False) as behind, folder_and_tree() as (folder, root):
        both = (folder / "server.pem").read_bytes() + (folder / "server.key").read_bytes()
        (folder / "both.pem").write_bytes(both)

        def command(port: int) -> Sequence[str]:
            config = f"""
global
    stats socket {folder}/admin.sock
defaults
    mode http
    timeout connect 10s
    timeout client 60s
    timeout server 60s
frontend entry
    bind 127.0.0.1:{port} ssl crt {folder}/both.pem alpn h2,http/1.1
    default_backend behind
backend behind
    server one 127.0.0.1:{behind.port} ssl verify none
"""
            return [program, "-W", "-db", "-f", str(_config(folder, "haproxy.cfg", config))]

        yield from run("haproxy", folder, root, command)


# -- Node, Go, Hypercorn -----------------------------------------------------------------------------------------------

_NODE = """
const http2 = require('http2'), fs = require('fs'), [port, folder, root] = process.argv.slice(2);
const tls = {cert: fs.readFileSync(folder + '/server.pem'), key: fs.readFileSync(folder + '/server.key')};
const server = http2.createSecureServer({...tls, allowHTTP1: true}, (request, response) => {
  if (request.url === '/echo') return request.pipe(response);
  if (request.url === '/trailers') {
    response.writeHead(200, {trailer: 'x-checksum'});
    response.write('body');
    response.addTrailers({'x-checksum': '42'});
    return response.end();
  }
  fs.readFile(root + request.url, (error, data) => {
    response.statusCode = error ? 404 : 200;
    response.setHeader('content-length', error ? 0 : data.length);
    response.end(request.method === 'HEAD' || error ? undefined : data);
  });
});
server.listen(port, '127.0.0.1');
"""

_GO = """
package main

import (
	"io"
	"net/http"
	"os"
)

func main() {
	port, folder, root := os.Args[1], os.Args[2], os.Args[3]
	http.Handle("/bytes/", http.FileServer(http.Dir(root)))
	http.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 {
			io.Copy(w, r.Body)
			return
		}
		// Over HTTP/1.1 net/http reads no more of a body once it answers.
		body, _ := io.ReadAll(r.Body)
		w.Write(body)
	})
	http.HandleFunc("/trailers", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "x-checksum")
		io.WriteString(w, "body")
		w.Header().Set("x-checksum", "42")
	})
	panic(http.ListenAndServeTLS("127.0.0.1:"+port, folder+"/server.pem", folder+"/server.key", nil))
}
"""

_HYPERCORN = """
import asyncio, pathlib, sys
from hypercorn.asyncio import serve
from hypercorn.config import Config

port, folder, root = int(sys.argv[1]), *map(pathlib.Path, sys.argv[2:4])

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    status, headers, trailers = 200, [], []
    pieces = []
    while True:
        message = await receive()
        pieces.append(message.get("body", b""))
        if not message.get("more_body"):
            break
    if scope["path"] == "/echo":
        body = b"".join(pieces)
    elif scope["path"] == "/trailers":
        body, trailers = b"body", [(b"x-checksum", b"42")]
    else:
        path = root / scope["path"].lstrip("/")
        status, body = (200, path.read_bytes()) if path.is_file() else (404, b"")
    headers.append((b"content-length", b"%d" % len(body)))
    carries_trailers = bool(trailers) and "http.response.trailers" in scope.get("extensions", {})
    await send({"type": "http.response.start", "status": status, "headers": headers, "trailers": carries_trailers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
    if carries_trailers:
        await send({"type": "http.response.trailers", "headers": trailers, "more_trailers": False})

config = Config()
config.bind = [f"127.0.0.1:{port}"]
config.certfile, config.keyfile = str(folder / "server.pem"), str(folder / "server.key")
config.alpn_protocols = ["h2", "http/1.1"]
config.h2_max_concurrent_streams = 100
config.keep_alive_max_requests = int(sys.argv[4])
asyncio.run(serve(app, config))
"""


@contextlib.contextmanager
def node() -> Iterator[Served]:
    """Node's http2 module."""
    program = find_program("node", package="nodejs")
    yield from _scripted("node", "server.js", _NODE, lambda path: [program, str(path)])


@contextlib.contextmanager
def go() -> Iterator[Served]:
    """Go's net/http, built at the start."""
    program = find_program("go", package="golang-go")

    def build(path: Path) -> Sequence[str]:
        environment = {**_home(path.parent), "GOFLAGS": "-mod=mod", "GO111MODULE": "off"}
        built = path.parent / "server"
        subprocess.run([program, "build", "-o", str(built), str(path)], check=True, env=environment)
        # Its cache is 50 MB of read-only files.
        shutil.rmtree(path.parent / ".cache", ignore_errors=True)
        return [str(built)]

    yield from _scripted("go", "server.go", _GO, build)


@contextlib.contextmanager
def hypercorn(*, keepalive_requests: int = KEEPALIVE_REQUESTS) -> Iterator[Served]:
    """Hypercorn, a server built on h2."""
    if importlib.util.find_spec("hypercorn") is None:
        raise ServerMissing("hypercorn is not installed: pip install hypercorn")
    yield from _scripted(
        "hypercorn", "server.py", _HYPERCORN, lambda path: [sys.executable, str(path)], keepalive_requests
    )


def _scripted(
    name: str, script: str, text: str, program: Callable[[Path], Sequence[str]], *further: int
) -> Iterator[Served]:
    with folder_and_tree() as (folder, root):
        start = list(program(_config(folder, script, text)))
        command: Command = lambda port: [*start, str(port), str(folder), str(root), *map(str, further)]  # noqa: E731 - one line says it
        yield from run(name, folder, root, command)
