"""What the kernel and the interpreter say about sockets, threads and memory, to be held against what a client says."""

from __future__ import annotations

import os
import threading
from pathlib import Path

_ESTABLISHED = "01"  # include/net/tcp_states.h


def sockets_to(port: int) -> int:
    """Established TCP connections of this process to a port, counted by the kernel (/proc/net/tcp and tcp6)."""
    wanted = _inodes_to(port)
    return len(wanted & _own_inodes()) if wanted else 0


def _inodes_to(port: int) -> set[str]:
    found = set()
    for table in (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6")):
        for line in table.read_text("ascii").splitlines()[1:] if table.exists() else ():
            _, _, remote, state, *_, inode = line.split()[:10]
            if state == _ESTABLISHED and int(remote.rpartition(":")[2], 16) == port:
                found.add(inode)
    return found


def _own_inodes() -> set[str]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # closed since it was listed
        if target.startswith("socket:["):
            found.add(target[8:-1])
    return found


def io_threads(origin: str) -> int:
    """Living I/O threads of an origin, counted by name."""
    return sum(thread.name == f"hyperpool {origin}" for thread in threading.enumerate())


def our_threads() -> list[str]:
    """The names of all living threads of the client."""
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("hyperpool"))


def peak_memory_mib() -> float:
    """The most memory that this program had resident (VmHWM; ru_maxrss would begin with the parent's)."""
    for line in Path("/proc/self/status").read_text("ascii", "replace").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0
