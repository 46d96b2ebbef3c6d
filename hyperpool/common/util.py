"""`HTTPVersion`, where hyper has it."""

from hyperpool.connection_messages import HTTPVersion

__all__ = ["HTTPVersion"]
