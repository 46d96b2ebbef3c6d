"""Flow-control managers: classes of the caller's that decide about the credit a server gets (RFC 9113 5.2).

``HTTP20Connection(host, window_manager=…)`` takes the class. One object of it is made for the connection and one for
each stream; the I/O thread asks them, so they must not block. Without one, hyperpool grants half a window at a time as
the reader reads, which is what most programs want.
"""

from __future__ import annotations


class BaseFlowControlManager:
    """What a manager knows, and what its subclass has to say.

    Owned by the I/O thread of its connection.

    ``initial_window_size``: bytes that the server could send at the beginning. ``window_size``: what it may send now.
    ``document_size``: what Content-Length says, None where it says nothing; padding comes on top. Subclasses read
    these and never set them.
    """

    def __init__(self, initial_window_size: int, document_size: int | None = None) -> None:
        self.initial_window_size = initial_window_size
        self.window_size = initial_window_size
        self.document_size = document_size

    def increase_window_size(self, frame_size: int) -> int:
        """How many bytes of credit to give for this many that were received; 0 for none now.

        Asked before ``window_size`` counts them: for the connection as they arrive, for a stream as they are read.
        Must be overridden.
        """
        raise NotImplementedError(f"{type(self).__name__} must say by how much a window grows")

    def blocked(self) -> int:
        """How many bytes of credit to give to a blocked server. HTTP/2 lost the frame that says so: never asked."""
        raise NotImplementedError(f"{type(self).__name__} must say by how much a blocked window grows")

    def _handle_frame(self, frame_size: int) -> int:
        grown = self.increase_window_size(frame_size)
        self.window_size += grown - frame_size
        return grown

    def _blocked(self) -> int:
        grown = self.blocked()
        self.window_size += grown
        return grown


class FlowControlManager(BaseFlowControlManager):
    """hyper's own manager: it fills the window up when less than a quarter, or less than 1,000 bytes, is left."""

    def increase_window_size(self, frame_size: int) -> int:
        """All that is missing, once little is left."""
        left = self.window_size - frame_size
        if left < 1000 or left < self.initial_window_size / 4:
            return self.initial_window_size - left
        return 0

    def blocked(self) -> int:
        """All that is missing."""
        return self.initial_window_size - self.window_size
