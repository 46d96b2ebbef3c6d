"""The command line: ``hyperpool [METHOD] URL [ITEM ...]``, one request through the same client that programs use.

Rooms: `arguments` (what may be typed), `items` (HTTPie's request items), `content` (the body that they make),
`output` (heads and bodies on a terminal or into a pipe), `download` (``-o FILE``), `run` (from words to exit status).
Nothing is sent that the words do not say, and nothing is loaded that the request does not need.
"""

from hyperpool.cli.run import main

__all__ = ["main"]
