"""`HTTP11Connection`, where hyper has it."""

from hyperpool.connection import HTTP11Connection

__all__ = ["HTTP11Connection"]
