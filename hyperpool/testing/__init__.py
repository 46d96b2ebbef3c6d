"""The test kit: a real server with scriptable faults, a scripted peer for single frames, throw-away certificates.

    from hyperpool.testing import Reply, Server

    with Server(lambda request: Reply(200, body=b"hello")) as server:
        ...  # any client, against server.url("/"), trusting server.ca_pem

Nothing of hyperpool's client is imported here, so that the kit can judge it, and no pytest: the fixture
`hyperpool_server` lives in `hyperpool.testing.pytest_plugin`.
"""

from hyperpool.testing.bodies import PeerGone
from hyperpool.testing.certificates import CertificateAuthority
from hyperpool.testing.logbook import SeenRequest
from hyperpool.testing.messages import Disconnect, Refuse, Reply, Request, Reset, Silence, inline
from hyperpool.testing.paths import pattern, pattern_at, pattern_pieces
from hyperpool.testing.scripted import ScriptedConnection, ScriptedPeer
from hyperpool.testing.server import Server

__all__ = [
    "CertificateAuthority",
    "Disconnect",
    "PeerGone",
    "Refuse",
    "Reply",
    "Request",
    "Reset",
    "ScriptedConnection",
    "ScriptedPeer",
    "SeenRequest",
    "Server",
    "Silence",
    "inline",
    "pattern",
    "pattern_at",
    "pattern_pieces",
]
