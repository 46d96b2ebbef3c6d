"""The peers of `stress.floods`: each kind is ended by the client, and the program says so.

What a flood does to others is a matter of time, which no test asks for: docs/reliability.md has the figures.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from client_support import H2_PLAIN, Kit, error_of

import hyperpool
import stress
from hyperpool.testing import ScriptedConnection
from stage import WAIT_S
from stress import servers
from stress.flood_peer import ANSWERED, FLOODS, Attack, Told
from stress.floods import ENHANCE_YOUR_CALM

ROOT = Path(stress.__file__).resolve().parents[1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in FLOODS if kind != ANSWERED])
def test_each_flood_is_ended_and_the_next_request_is_answered(kit: Kit, kind: str) -> None:
    told: list[Told] = []

    def script(connection: ScriptedConnection) -> None:
        told.append(Attack(connection, FLOODS[kind]).run())

    peer, client = kit.peer(script, tls=False), kit.client(H2_PLAIN)
    # RST_STREAM ends the request with its first frame, before there is a flood.
    reset = kind == "RST_STREAM"
    error_of(client.submit("GET", peer.url()), hyperpool.StreamReset if reset else hyperpool.RemoteProtocolError)
    assert peer.wait_done(1, WAIT_S)
    # The code may be lost where the kernel says "reset" before it has been read.
    assert told[0].written_bytes and told[0].code in (None, ENHANCE_YOUR_CALM)
    assert client.get(kit.server(H2_PLAIN).url("/bytes/3")).status == 200


def test_what_is_no_flood_is_not_ended(kit: Kit) -> None:
    told: list[Any] = []
    peer = kit.peer(lambda connection: told.append(Attack(connection, FLOODS[ANSWERED]).run()), tls=False)
    assert kit.client(H2_PLAIN).get(peer.url()).content == b"here"
    assert peer.wait_done(1, WAIT_S)
    assert (told[0].frames, told[0].code) in [(0, None), (0, 0)]


@pytest.mark.slow
def test_the_program_prints_a_row_for_each_kind_and_finds_nothing_wrong() -> None:
    try:
        servers.find_program("nginx", package="nginx")
    except servers.ServerMissing as missing:
        pytest.skip(str(missing))
    command = [sys.executable, "-m", "stress.floods", "--kinds", "PING", "--seconds", "0.05", "--rounds", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3 * WAIT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["kind", "PING", "0"]
