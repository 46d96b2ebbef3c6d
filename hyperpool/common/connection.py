"""`HTTPConnection`, where hyper has it."""

from hyperpool.connection import HTTPConnection

__all__ = ["HTTPConnection"]
