"""`HTTP20Response` and `HTTP20Push`, where hyper has them."""

from hyperpool.connection_messages import HTTP20Push, HTTP20Response

__all__ = ["HTTP20Push", "HTTP20Response"]
