"""Fuzzers for everything that takes bytes or text of others, with a corpus: our own mutator, and no other package.

    python -m stress.fuzz --harness h2 --seconds 60 --seed 1
    python -m stress.fuzz --harness all --seconds 10
    python -m stress.fuzz --harness h1 --replay fuzz-findings/h1-3f2a.hex

What holds for each input is written in `stress.harnesses`: only errors of hyperpool's tree come out; the outcome is the
same however the bytes are cut; output is bounded. Here it is bounded in time as well (``CPU_S`` of processor time for
an input of at most ``MAX_BYTES``), and in memory (``GROWTH_MIB``).

Inputs come from the corpus in tests/corpus/<harness>/ (a test replays it), changed a few times at random; those that
give a new outcome are changed further. Input number i follows from the seed alone. A finding is saved as a file that
`--replay` takes, and that belongs into the corpus when it is mended. The exit status is 0 if there was none.
"""

from __future__ import annotations

import argparse
import random
import resource
import signal
import sys
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from stress.harnesses import HARNESSES, ROOT

CORPUS = ROOT / "tests/corpus"
MAX_BYTES = 20_000
CPU_S = 2.0
# The most that one input may add to what was resident at most: decoders and windows are bounded by far less.
GROWTH_MIB = 64
# How many inputs with outcomes of their own are kept.
KEPT = 2_000
FINDINGS_SHOWN = 10

# Numbers at the edges of fields of one, two, three and four bytes.
_EDGES = (0, 1, 2, 9, 16_383, 16_384, 16_385, 65_535, 65_536, 2**24 - 1, 2**31 - 1, 2**31, 2**32 - 1)
_TOKENS: dict[str, tuple[bytes, ...]] = {
    "h1": (
        *(b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b"\r\n ", b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 101 S\r\n"),
        *(b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"\r\n\r\n"),
        *(b"Transfer-Encoding: gzip, chunked\r\n", b"Content-Length: 3, 3\r\n", b"HTTP/1.1 204 N\r\n", b"\xff", b"+3"),
    ),
    "h1-chunked": (b"0\r\n\r\n", b"\r\n", b"\n", b";", b";a=b", b';a="', b'"', b"ffffffffffffffff", b"-1", b"0x", b" "),
    "url": (
        *(b"http://", b"https://", b"//", b"@", b":", b"[::1]", b"%", b"%00", b"%2f", b"\\", b"#", b"?", b"*", b".."),
        *(b":0", b":65536", b"\xc3\xa4", b"xn--", b"\xe3\x80\x82", b"\t", b"\n", b"[fe80::1%25a]", b"\xff", b"a" * 300),
    ),
    "header": (
        *(b"\r", b"\0", b":", b"Host:", b"host: b", b"Content-Length:", b"Transfer-Encoding: chunked", b"Connection:"),
        *(b"Upgrade: h2c", b"TE: gzip", b":path: /", b"\xc3\xa4", b"\xf0\x9f\x98\x80", b"Cookie:", b"\x7f", b"OPTIONS"),
        *(b"CONNECT", b"http://b.test/", b"*", b" ", b"\t"),
    ),
    "redirects": (
        *(b"\n301 ", b"\n302 ", b"\n303 ", b"\n307 ", b"\n308 ", b"\n200", b"\n401 Basic realm=x", b"https://b.test/"),
        *(b"http://a.test/", b"https://a.test:443/", b"https://A.test./", b"//b.test", b"/x", b"?q", b"#f", b".."),
        *(b"\\", b"https://a.test@b.test/", b"https://b.test/@a.test", b"ftp://a.test/", b"http+unix://%2ftmp%2fs/"),
        *(b"%00", b"|k=v", b"; Domain=a.test", b"; Domain=.test", b"; Secure", b"; Path=/", b"\t", b" ", b"@", b":"),
        *(b"\xff", b"https://x.a.test/", b"https://[::1]/", b"https://127.0.0.1/", b"\xe3\x80\x82", b"GET ", b"POST "),
        *(
            b"a",
            b"d",
            b"t",
            b"h",
            b"c",
            b"k",
            b"u",
            b"g",
            b'\n401 Digest realm="r", nonce="n", qop="auth", algorithm=SHA-256',
        ),
    ),
    "proxies": (
        *(b"http://", b"socks5://", b"socks5h://", b"https://", b"user:secret@", b"@", b":", b"[", b"]", b"%", b"#"),
        *(b"*", b".", b"10.0.0.0/8", b"::1/64", b",", b" ", b"/", b":99999", b"\xc3\xa4", b"\n", b"0/0", b"%40"),
    ),
}


class Finding(Exception):
    """An input that took too much."""


class _TooSlow(BaseException):
    """Raised by the timer in the middle of whatever takes so long; no `except Exception` must catch it."""


# -- inputs ------------------------------------------------------------------------------------------------------------


def load(path: Path) -> bytes:
    """An input from its file: hexadecimal digits with comments behind "#" (.hex), or as it stands."""
    if path.suffix != ".hex":
        return path.read_bytes()
    lines = path.read_text("ascii").splitlines()
    return bytes.fromhex("".join(line.partition("#")[0] for line in lines))


def corpus(harness: str) -> list[Path]:
    """The files of a harness, in the same order everywhere."""
    return sorted(path for path in (CORPUS / harness).glob("*") if path.suffix in (".hex", ".txt"))


def _insert_token(data: bytearray, chance: random.Random, harness: str) -> None:
    tokens = _TOKENS.get(harness)
    at = chance.randrange(len(data) + 1)
    data[at:at] = chance.choice(tokens) if tokens else chance.randbytes(chance.randrange(1, 9))


def _flip(data: bytearray, chance: random.Random, harness: str) -> None:
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _set_byte(data: bytearray, chance: random.Random, harness: str) -> None:
    if data:
        data[chance.randrange(len(data))] = chance.choice((0, 1, 9, 10, 13, 32, 48, 127, 128, 255))


def _set_number(data: bytearray, chance: random.Random, harness: str) -> None:
    size = chance.choice((1, 2, 3, 4))
    at = chance.randrange(max(1, len(data) - size))
    data[at : at + size] = (chance.choice(_EDGES) % 256**size).to_bytes(size, "big")


def _slice(data: bytearray, chance: random.Random) -> tuple[int, int]:
    begin = chance.randrange(len(data) + 1)
    return begin, min(len(data), begin + int(chance.expovariate(1 / 12)) + 1)


def _delete(data: bytearray, chance: random.Random, harness: str) -> None:
    begin, end = _slice(data, chance)
    del data[begin:end]


def _repeat(data: bytearray, chance: random.Random, harness: str) -> None:
    begin, end = _slice(data, chance)
    data[end:end] = data[begin:end] * chance.choice((1, 1, 2, 50))


def _move(data: bytearray, chance: random.Random, harness: str) -> None:
    begin, end = _slice(data, chance)
    piece = data[begin:end]
    del data[begin:end]
    at = chance.randrange(len(data) + 1)
    data[at:at] = piece


def _cut_off(data: bytearray, chance: random.Random, harness: str) -> None:
    del data[chance.randrange(len(data) + 1) :]


def _frames(data: bytearray) -> list[bytearray]:
    found, at = [], 0
    while at + 9 <= len(data):
        end = at + 9 + int.from_bytes(data[at : at + 3], "big")
        found.append(data[at:end])
        at = end
    return [*found, data[at:]] if at < len(data) else found


def _change_frames(data: bytearray, chance: random.Random, harness: str) -> None:
    """HTTP/2: repeat, drop, move or relabel whole frames, so that their bodies stay good (RFC 9113 4.1)."""
    frames = _frames(data)
    if not harness.startswith("h2") or not frames:
        return
    at = chance.randrange(len(frames))
    act = chance.randrange(6)
    if act == 0:
        frames[at:at] = [bytearray(frames[at]) for _ in range(chance.choice((1, 2, 40)))]
    elif act == 1:
        del frames[at]
    elif act == 2:
        frames.insert(chance.randrange(len(frames)), frames.pop(at))
    elif len(frames[at]) >= 9 and act == 3:
        frames[at][3] = chance.randrange(11)
    elif len(frames[at]) >= 9 and act == 4:
        frames[at][4] ^= chance.choice((1, 4, 8, 32))
    elif len(frames[at]) >= 9:
        frames[at][5:9] = chance.choice((0, 1, 2, 3, 5, 7, 9, 2**31 - 1)).to_bytes(4, "big")
    data[:] = b"".join(frames)


def _mend_lengths(data: bytearray, chance: random.Random, harness: str) -> None:
    """HTTP/2: make the frame that a change has stretched or shortened end where the next one began."""
    if harness.startswith("h2") and len(data) > 9:
        size = min(len(data) - 9, chance.choice((0, 4, 5, 6, 8, 12, len(data) - 9)))
        data[:3] = size.to_bytes(3, "big")


_CHANGES: tuple[Callable[[bytearray, random.Random, str], None], ...] = (
    *(_flip, _set_byte, _set_number, _delete, _repeat, _move, _cut_off, _mend_lengths),
    *(_insert_token, _insert_token, _change_frames, _change_frames, _change_frames),
)


class Inputs:
    """The inputs of a run: a population that grows, and changes of its members. Owned by the run."""

    def __init__(self, harness: str, seed: int, seeds: list[bytes]) -> None:
        self._harness = harness
        self._chance = random.Random(f"{seed}:{harness}")
        self._population = seeds or [b""]
        self._outcomes: set[str] = set()

    def next(self) -> bytes:
        """One more input."""
        chance = self._chance
        data = bytearray(chance.choice(self._population))
        if chance.random() < 0.1:
            other = chance.choice(self._population)
            data = data[: chance.randrange(len(data) + 1)] + other[chance.randrange(len(other) + 1) :]
        for _ in range(chance.choice((1, 1, 2, 3, 6))):
            chance.choice(_CHANGES)(data, chance, self._harness)
        return bytes(data[:MAX_BYTES])

    def gave(self, data: bytes, outcome: str) -> None:
        """Keep an input whose outcome is new."""
        if outcome not in self._outcomes and len(self._outcomes) < KEPT:
            self._outcomes.add(outcome)
            self._population.append(data)

    @property
    def outcomes(self) -> int:
        return len(self._outcomes)


# -- runs --------------------------------------------------------------------------------------------------------------


def _ring(number: int, frame: FrameType | None) -> None:
    raise _TooSlow


def run_bounded(harness: str, data: bytes) -> str:
    """The outcome of one input. Raises whatever is wrong with it, `Finding` for too much time or memory."""
    before = _peak_mib()
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_S)
    try:
        outcome = HARNESSES[harness](data)
    except _TooSlow:
        raise Finding(f"more than {CPU_S:g} s of processor time for {len(data):,} bytes") from None
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    if _peak_mib() - before > GROWTH_MIB:
        raise Finding(f"{_peak_mib() - before:,.0f} MiB more for {len(data):,} bytes")
    return outcome


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Run:
    """One harness for some time. ``findings``: one input for each place and kind of error."""

    def __init__(self, harness: str, seed: int, folder: Path) -> None:
        self._harness = harness
        self._folder = folder
        self.inputs = Inputs(harness, seed, [load(path) for path in corpus(harness)])
        self.findings: dict[str, Path] = {}
        self.count = 0

    def go_on(self, seconds: float) -> None:
        """Try inputs until the time is up."""
        until_at = time.monotonic() + seconds
        for path in corpus(self._harness):
            self.try_one(load(path))
        while time.monotonic() < until_at and len(self.findings) < FINDINGS_SHOWN:
            self.try_one(self.inputs.next())

    def try_one(self, data: bytes) -> None:
        self.count += 1
        try:
            self.inputs.gave(data, run_bounded(self._harness, data))
        except Exception as error:
            self._note(data, error)

    def _note(self, data: bytes, error: Exception) -> None:
        frames = traceback.extract_tb(error.__traceback__)
        where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
        name = f"{type(error).__name__} at {where}"
        if name in self.findings:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self.findings[name] = self._folder / f"{self._harness}-{zlib.crc32(data):08x}.hex"
        path.write_text("\n".join(_hex_lines(data, name)) + "\n", "ascii", "replace")
        print(f"! {name}: {str(error)[:300]}\n  {path}", flush=True)


def _hex_lines(data: bytes, comment: str) -> Iterator[str]:
    yield f"# {comment}"
    for at in range(0, len(data), 40):
        yield data[at : at + 40].hex()


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 where nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m stress.fuzz", description="Bytes that nobody should send.")
    parser.add_argument("--harness", choices=(*HARNESSES, "all"), default="all")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each harness")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"), help="folder for what is found")
    parser.add_argument("--replay", type=Path, help="one input from its file")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGVTALRM, _ring)
    if options.replay is not None:
        print(run_bounded(options.harness, load(options.replay)))
        return 0
    found = 0
    for harness in HARNESSES if options.harness == "all" else (options.harness,):
        run = Run(harness, options.seed, options.findings)
        run.go_on(options.seconds)
        found += len(run.findings)
        print(f"{harness:14} {run.count:>9,} inputs, {run.inputs.outcomes:>5,} outcomes, {len(run.findings)} findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
