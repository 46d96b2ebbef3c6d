"""`HTTPHeaderMap`, where hyper has it."""

from hyperpool.headers import HTTPHeaderMap

__all__ = ["HTTPHeaderMap"]
