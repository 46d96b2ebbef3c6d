"""A simulated network, as the seed says: a loop turned by hand, servers, callers, and wires that cut, delay and lose.

    python -m stress.simulate --seeds 500
    python -m stress.simulate --seeds 10000 --from 20000
    python -m stress.simulate --seed 4711 --verbose

No thread, no port, no sleep: time is a number. A seed is one life of a loop with a dozen requests. In its first part
chance decides at each step whose turn it is (the loop, a wire, a server, a caller, the clock) and what goes wrong; in
its second part all is well, and everything must come to its end. What holds for each seed:

- every Future is settled once, within `PATIENCE_S` of well-being, with the right body or an error of hyperpool's;
- every upload that a server takes for whole is whole;
- no request is seen twice by servers, but where each earlier copy was refused or stood above a GOAWAY, or an
  idempotent one was lost by a kept-alive HTTP/1.1 connection;
- the ledgers of both windows balance whenever the loop rests, and the loop does not spin;
- afterwards a fresh request to a good server is answered, and nothing is left open.

The same seed makes the same life: a failing one is repeated by ``--seed``. Exit status 0 if all held.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any

from hyperpool.engine.dial import Dialed
from hyperpool.errors import ConnectError, HyperpoolError
from hyperpool.handoff import messages
from hyperpool.handoff.exchange import State
from hyperpool.protocol.fields import IDEMPOTENT
from hyperpool.values import Limits, Timeout
from stress.simulated import SIZES, Http1Server, Http2Server, Shuffled, Wire, bench_room, right_body

REQUESTS = 12
# Of virtual time, in which all is well: longer than every timeout of `LIMITS` together.
PATIENCE_S = 300.0
# A life that takes more steps than this to come to its end is one that spins.
MOST_STEPS = 40_000
LIMITS = Limits(
    max_connections_per_origin=2,
    max_http1_connections_per_origin=3,
    max_streams_per_connection=4,
    stream_window_bytes=65_535,
    connection_window_bytes=100_000,
    idle_s=40.0,
    ping_after_s=5.0,
    ping_timeout_s=3.0,
)


class World:
    """One seed's loop, with everything around it. Owned by whoever turns it."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.chance = random.Random(seed)
        random.seed(seed)  # the loop's own jitter
        self.http2 = self.chance.random() < 0.7
        self.bench: Any = bench_room().Bench(LIMITS)
        loop = self.bench.loop
        loop._selector = loop._connections._selector = Shuffled(loop._selector, self.chance, self._number)
        self.wires: list[Wire] = []
        self.servers: list[Http2Server | Http1Server] = []
        self.uploads: dict[str, bytes] = {}
        self.calls: dict[str, Any] = {}
        self.called_back: Counter[str] = Counter()
        self.bodies: dict[str, bytes] = {}
        self.left_early: set[str] = set()
        self.feeding: list[tuple[Any, bytes]] = []
        self.history: list[str] = []
        self.counts: Counter[str] = Counter()

    def _number(self, connection: Any) -> int:
        connections = list(self.bench.loop._connections)
        return connections.index(connection) if connection in connections else -1

    @property
    def now(self) -> float:
        return float(self.bench.clock.now)

    def note(self, what: str) -> None:
        self.history.append(what)
        self.counts[what.partition(" ")[0]] += 1

    # -- the first part: chance --------------------------------------------------------------------------------------

    def live(self) -> None:
        """Steps at random, then well-being, then the laws."""
        try:
            for _ in range(3):
                self._submit()
            for _ in range(self.chance.choice((100, 300, 600))):
                self._step()
            self._come_to_an_end()
            self._check()
            self._ask_once_more()
        except BaseException:
            with suppress(Exception):  # the bench would complain as well, and hide the reason
                self._leave()
            raise
        self._leave()
        assert all(times == 1 for times in self.called_back.values()), self.called_back

    def _leave(self) -> None:
        for wire in self.wires:
            wire.close()
        self.bench.close()

    def _step(self) -> None:
        act = self.chance.choices(
            (self._turn, self._carry, self._serve, self._call, self._pass_time, self._dial, self._harm),
            (8, 8, 6, 4, 1, 2, 0.15),
        )[0]
        act()

    def _turn(self) -> bool:
        if self.bench.ended or not self.bench.is_due:
            return False
        self.bench.step()
        if not self.bench.ended and not self.bench.is_due:
            self.bench._check_ledgers()
        return True

    def _carry(self) -> bool:
        parts: list[Callable[[], bool]] = [lambda wire=wire: wire.carry(self.now) for wire in self.wires]  # type: ignore[misc]
        parts += [server.peer.carry for server in self.servers]
        return bool(parts) and self.chance.choice(parts)()

    def _serve(self) -> None:
        if self.servers:
            self.chance.choice(self.servers).act()

    def _pass_time(self) -> None:
        self.bench.clock.now += self.chance.choice((0.001, 0.01, 0.01, 0.3, 1.1, 6.0))

    def _harm(self) -> None:
        living = [wire for wire in self.wires if not wire.is_cut]
        if living:
            self.note(self.chance.choice(living).harm(self.now))

    def _dial(self, *, well: bool = False) -> bool:
        if not self.bench.dialer.pending:
            return False
        if not well and self.chance.random() < 0.1:
            self.note("dial-failed")
            self.bench.fail_dial(ConnectError("nobody is there"))
            return True
        wire = Wire(self.chance)
        self.wires.append(wire)
        room = bench_room()
        dialed = Dialed(self.bench.route, wire.ours, None, "h2" if self.http2 else None, (), {})
        self.bench.dialer.pending.pop(0).deliver(messages.Dialed(dialed))
        peer = (room.H2Peer if self.http2 else room.H1Peer)(wire.theirs)
        self.bench.peers.append(peer)
        kind = Http2Server if self.http2 else Http1Server
        self.servers.append(kind(peer, self.chance, self.uploads))
        self.note("connected")
        return True

    # -- callers -------------------------------------------------------------------------------------------------------

    def _call(self) -> None:
        acts: list[Callable[[], object]] = [self._submit, self._read, self._feed, self._cancel]
        acts += [self._submit, self._read]
        if self.bench.ended:
            return
        self.chance.choice(acts)()

    def _submit(self) -> None:
        if len(self.calls) >= REQUESTS:
            return
        path = f"/{self.seed}/{len(self.calls)}"
        method = self.chance.choice(("GET", "GET", "POST", "POST", "HEAD", "DELETE"))
        options: dict[str, Any] = {"method": method, "stream": self.chance.random() < 0.4}
        if self.chance.random() < 0.2:
            options["timeout"] = Timeout(self.chance.choice((0.5, 5.0, 30.0)))
        if method == "POST":
            body = self.uploads[path] = self.chance.randbytes(self.chance.choice(SIZES))
            if self.chance.random() < 0.4:
                source = options["source"] = bench_room().HandFed(replayable=self.chance.random() < 0.5)
                self.feeding.append((source, body))
            else:
                options["content"] = body
        call = self.calls[path] = self.bench.submit(path, **options)
        self.called_back[path] = 0
        call.future.add_done_callback(lambda _: self.called_back.update([path]))
        self.note(f"{method} {path}")

    def _feed(self, *, whole: bool = False) -> bool:
        """A piece of one upload, into the pipe that is open now; a replay begins anew."""
        fed = False
        for source, body in self.feeding if whole else self.feeding[:1]:
            if not source.pipes:
                continue
            pipe = source.pipe
            at = getattr(pipe, "_simulated_at", 0)
            if at > len(body) or pipe._buffered_bytes > LIMITS.upload_buffer_bytes // 2:
                continue
            piece = body[at : at + (1 << 16 if whole else self.chance.choice((1, 3_000, 30_000)))]
            pipe.feed(piece)
            at += len(piece)
            if at == len(body):
                pipe.finish()
                at += 1
            pipe._simulated_at = at
            fed = True
        self.chance.shuffle(self.feeding)
        return fed

    def _cancel(self) -> None:
        if self.calls and self.chance.random() < 0.3:
            path = self.chance.choice(list(self.calls))
            if self.calls[path].future.cancel():
                self.note("cancelled")

    def _read(self, *, everything: bool = False) -> bool:
        """What a reader finds of a streamed response without waiting, or its close."""
        moved = False
        for path, call in self.calls.items():
            if not (call.exchange.streamed and call.done and call.error is None) or path in self.left_early:
                continue
            if not everything and self.chance.random() < 0.7:
                continue
            if not everything and self.chance.random() < 0.05:
                call.response.close()
                self.left_early.add(path)
                continue
            moved |= self._read_some(path, call)
        return moved

    def _read_some(self, path: str, call: Any) -> bool:
        unread = call.exchange.unread_bytes
        try:
            found = call.read()
            if call.exchange.state is State.DONE:
                found += b"".join(call.pieces)
                self.left_early.add(path)
                self.bodies[path] = self.bodies.get(path, b"") + found
                self._check_body(path, self.bodies[path])
                return True
        except HyperpoolError:
            self.left_early.add(path)
            return True
        self.bodies[path] = self.bodies.get(path, b"") + found
        return bool(unread)

    # -- the second part: well-being -----------------------------------------------------------------------------------

    def _come_to_an_end(self) -> None:
        """No more harm, and servers that answer: everything must be settled."""
        for wire in self.wires:
            wire.heal()
        until_at = self.now + PATIENCE_S
        for _ in range(MOST_STEPS):
            if self._all_settled():
                return
            if not self._everybody_once():
                self._let_time_pass()
            assert self.now < until_at, f"hangs: {[call.exchange for call in self.calls.values() if not call.done]}"
        raise AssertionError("the loop spins")

    def _everybody_once(self) -> bool:
        moved = self._turn()
        for wire in self.wires:
            wire.heal()
            moved |= wire.carry(self.now)
        for server in self.servers:
            moved |= bool(server.serve()) | bool(server.peer.carry())
        moved |= self._feed(whole=True)
        moved |= self._read(everything=True)
        return moved | self._dial(well=True)

    def _let_time_pass(self) -> None:
        """To the next instant at which anything could happen."""
        sleep_s = self.bench.loop._sleep_s() if not self.bench.ended else None
        due = [wire.due_at - self.now for wire in self.wires if not wire.is_cut and wire.due_at > self.now]
        self.bench.clock.now += max(0.001, min([*due, 1.0 if sleep_s is None else sleep_s, 5.0]))

    def _all_settled(self) -> bool:
        return all(
            call.done and (call.error is not None or not call.exchange.streamed or path in self.left_early)
            for path, call in self.calls.items()
        )

    # -- the laws ------------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        for path, call in self.calls.items():
            error = call.error
            if error is None:
                if not call.exchange.streamed:
                    self._check_body(path, call.response.content)
                self.counts["answered"] += 1
                continue
            assert isinstance(error, (HyperpoolError, CancelledError)), f"{path}: {error!r}"
            assert "bug in hyperpool" not in str(error), error
            self.counts[type(error).__name__] += 1
        self._check_sendings()

    def _check_body(self, path: str, got: bytes) -> None:
        right = b"" if self.calls[path].exchange.request.method == "HEAD" else right_body(path)
        assert got == right, f"{path} got {len(got)} bytes that are not its {len(right)}"

    def _check_sendings(self) -> None:
        copies: Counter[str] = Counter()
        for server in self.servers:
            copies.update(path for path, excused in server.sendings if not excused)
        for path, times in copies.items():
            method = self.calls[path].exchange.request.method
            repeatable = not self.http2 and (method in IDEMPOTENT or method.encode() in IDEMPOTENT)
            assert times <= 1 + repeatable, f"{method} {path} was sent {times} times"

    def _ask_once_more(self) -> None:
        """Contract C: the next request to a good server succeeds."""
        if self.bench.ended:
            return
        for call in self.calls.values():
            if call.error is None:
                call.response.close()
        path = f"/{self.seed}/last"
        self.calls[path] = call = self.bench.submit(path)
        self._come_to_an_end()
        if call.error is not None:
            # It may go out on a connection that was cut a moment before, and nobody could notice.
            assert call.error.processed == "maybe", f"a good server is not asked: {call.error!r}"
            self.counts["last-lost"] += 1

    def fingerprint(self) -> str:
        """Of all that was done: the same for the same seed."""
        told = [f"{path} {call.error!r}" for path, call in self.calls.items()]
        return hashlib.sha256("\n".join([*self.history, *told]).encode()).hexdigest()[:16]


def run_seed(seed: int) -> World:
    """One life; raises what did not hold."""
    world = World(seed)
    world.live()
    return world


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 where every seed held."""
    parser = argparse.ArgumentParser(prog="python -m stress.simulate", description="A network that a seed decides.")
    parser.add_argument("--seeds", type=int, default=500, help="how many")
    parser.add_argument("--from", type=int, default=1, dest="first", help="the first of them")
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--verbose", action="store_true", help="say what was done")
    options = parser.parse_args(arguments)
    seeds = range(options.first, options.first + options.seeds) if options.seed is None else [options.seed]
    began, failed, counts = time.monotonic(), 0, Counter[str]()
    for seed in seeds:
        world = World(seed)
        try:
            world.live()
        except Exception as error:
            failed += 1
            where = traceback.extract_tb(error.__traceback__)[-1]
            print(
                f"! seed {seed}: {type(error).__name__}: {str(error)[:300]} ({where.name}:{where.lineno})", flush=True
            )
            if options.seed is not None:
                traceback.print_exc()
        if options.verbose:
            print("\n".join(world.history))
        counts.update(world.counts)
    told = ", ".join(f"{count:,} {name}" for name, count in counts.most_common())
    print(f"{len(seeds):,} seeds in {time.monotonic() - began:.1f} s, {failed} failed; {told}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
