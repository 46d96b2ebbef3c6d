"""Hyperpool underneath libraries that people use already: one module for each, and none is loaded before it is named.

from hyperpool.contrib import HTTP20Adapter      # requests
from hyperpool.contrib.urllib3 import PoolManager
from hyperpool.contrib.httpx import HyperpoolTransport   # httpx
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hyperpool.contrib.requests import HTTP20Adapter

__all__ = ["HTTP20Adapter"]

# Where each name lives, and the package that it stands on.
_HOMES = {"HTTP20Adapter": ("hyperpool.contrib.requests", "requests")}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home, needed = _HOMES[name]
    try:
        return getattr(importlib.import_module(home), name)
    except ModuleNotFoundError as error:
        if error.name != needed:
            raise
        raise ImportError(f"{__name__}.{name} needs {needed}: pip install {needed}", name=needed) from error
