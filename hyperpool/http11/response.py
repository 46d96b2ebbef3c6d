"""`HTTP11Response`, where hyper has it."""

from hyperpool.connection_messages import HTTP11Response

__all__ = ["HTTP11Response"]
