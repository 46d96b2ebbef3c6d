"""SOCKS version 5 (RFC 1928) with user and password (RFC 1929), as one step on the way to an origin.

socksio is the machine (the extra "socks"). It wants whole messages, so their lengths are found here. socks5 asks for an
address that we resolved, socks5h for the name.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING, Any

from hyperpool.engine.resolve import ascii_name, is_address
from hyperpool.errors import ProxyError
from hyperpool.protocol.fields import credentials

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hyperpool.engine.resolve import Address
    from hyperpool.urls import Origin
    from hyperpool.values import Proxy

# Version, reply, reserved, address type, and the first byte of the address, which is its length for a name.
_REPLY_START_BYTES = 5
# RFC 1928 5: bytes of an address, by its type.
_ADDRESS_BYTES = {1: 4, 4: 16}
_IPV4, _NAME, _IPV6 = 1, 3, 4

# RFC 1928 6.
_REPLIES = {
    1: "it failed for a reason of its own",
    2: "its rules do not allow this origin",
    3: "it cannot reach the network of the origin",
    4: "it cannot reach the origin, or cannot resolve its name",
    5: "the origin refused the connection",
    6: "the origin is too far away (TTL expired)",
    7: "it does not know CONNECT",
    8: "it does not know this type of address; try the other of socks5 and socks5h",
}


class Socks:
    """The conversation that makes a SOCKS proxy connect to an origin.

    Owned by the dialling thread. Feed it one byte at a time: what follows its last message is not the proxy's.
    """

    def __init__(self, proxy: Proxy, origin: Origin) -> None:
        try:
            from socksio import socks5
        except ImportError as error:
            raise ProxyError(f"proxy {proxy}: SOCKS needs socksio: pip install socksio") from error
        self._socks5 = socks5
        self._machine: Any = socks5.SOCKS5Connection()
        self._proxy = proxy
        self._port = origin.port
        self._target = _target(proxy, origin.host)
        self._credentials = None if proxy.userinfo is None else _checked(proxy, credentials(proxy.userinfo))
        self._received = b""
        self._established = False
        self._expect = self._on_method
        methods = [socks5.SOCKS5AuthMethod.NO_AUTH_REQUIRED]
        if self._credentials is not None:
            methods.append(socks5.SOCKS5AuthMethod.USERNAME_PASSWORD)
        self._machine.send(socks5.SOCKS5AuthMethodsRequest(methods))

    @property
    def wants_address(self) -> bool:
        """Whether the origin's name must be resolved first."""
        return self._target is None

    def take_addresses(self, addresses: Sequence[Address]) -> None:
        """The origin's addresses. One is used: IPv4 where there is one, since few proxies have IPv6."""
        chosen = next((one for one in addresses if one.family == socket.AF_INET), addresses[0])
        self._target = _packed(chosen.sockaddr[0])

    def ciphertext(self) -> bytes:
        """What is to be sent; given out once."""
        return bytes(self._machine.data_to_send())

    def feed(self, ciphertext: bytes) -> None:
        """Take a byte of the proxy."""
        self._received += ciphertext

    def feed_eof(self) -> None:
        """The proxy closed. Raises ProxyError."""
        raise self._refused("closed the connection before it had connected to the origin")

    def handshake(self) -> bool:
        """Whether the proxy is connected to the origin. Raises ProxyError where it will not be."""
        if self._received and self._received[0] != self._version:
            raise self._refused("does not speak SOCKS 5 on this port")
        if len(self._received) >= self._message_bytes():
            message, self._received = self._received, b""
            self._expect(message)
        return self._established

    @property
    def _version(self) -> int:
        # RFC 1929 2: the messages about the password have a version of their own.
        return 1 if self._expect == self._on_password else 5

    def _message_bytes(self) -> int:
        if self._expect != self._on_reply:
            return 2
        if len(self._received) < _REPLY_START_BYTES:
            return _REPLY_START_BYTES
        kind, first = self._received[3:5]
        if kind == _NAME:
            return _REPLY_START_BYTES + first + 2
        if kind not in _ADDRESS_BYTES:
            raise self._refused(f"answered with an address of unknown type {kind} (RFC 1928 6)")
        return _REPLY_START_BYTES - 1 + _ADDRESS_BYTES[kind] + 2

    def _on_method(self, message: bytes) -> None:
        method = message[1:]
        if method == self._socks5.SOCKS5AuthMethod.NO_AUTH_REQUIRED:
            self._machine.receive_data(message)
            self._ask()
        elif method == self._socks5.SOCKS5AuthMethod.USERNAME_PASSWORD and self._credentials is not None:
            self._machine.receive_data(message)
            self._machine.send(self._socks5.SOCKS5UsernamePasswordRequest(*self._credentials))
            self._expect = self._on_password
        elif self._credentials is None:
            raise self._refused(
                f"wants credentials; give them in its URL, as {self._proxy.scheme}://user:password@host"
            )
        else:
            raise self._refused("takes neither these credentials nor none (RFC 1928 3)")

    def _on_password(self, message: bytes) -> None:
        if not self._machine.receive_data(message).success:
            raise self._refused("does not accept the credentials")
        self._ask()

    def _ask(self) -> None:
        assert self._target is not None, "the origin's address was to be resolved"
        kind, packed = self._target
        connect, kinds = self._socks5.SOCKS5Command.CONNECT, self._socks5.SOCKS5AType
        self._machine.send(self._socks5.SOCKS5CommandRequest(connect, kinds(bytes([kind])), packed, self._port))
        self._expect = self._on_reply

    def _on_reply(self, message: bytes) -> None:
        code = message[1]
        if code:
            raise self._refused(f"did not connect: {_REPLIES.get(code, f'error {code}')}")
        self._established = True

    def _refused(self, words: str) -> ProxyError:
        return ProxyError(f"proxy {self._proxy} {words}")


def _target(proxy: Proxy, host: str) -> tuple[int, bytes] | None:
    """The origin as SOCKS names it: type and bytes; None where its name is to be resolved here."""
    if is_address(host):
        return _packed(host)
    if proxy.scheme == "socks5":
        return None
    name = ascii_name(host).encode("ascii")
    if len(name) > 255:
        raise ProxyError(f"proxy {proxy}: the host name has {len(name)} bytes, and SOCKS takes 255 (RFC 1928 5)")
    return _NAME, name


def _packed(address: str) -> tuple[int, bytes]:
    packed = ipaddress.ip_address(address.strip("[]").partition("%")[0]).packed
    return _IPV4 if len(packed) == 4 else _IPV6, packed


def _checked(proxy: Proxy, pair: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    if max(map(len, pair)) > 255:
        raise ProxyError(f"proxy {proxy}: user and password may have 255 bytes each (RFC 1929 2)")
    return pair
