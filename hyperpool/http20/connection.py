"""`HTTP20Connection`, where hyper has it."""

from hyperpool.connection import HTTP20Connection

__all__ = ["HTTP20Connection"]
