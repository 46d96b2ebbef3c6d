"""Colours, by rich: this room is entered only where there is a terminal that shows them, and rich to make them."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich.console import Console
from rich.syntax import Syntax
from rich.text import Text

# The terminal's own sixteen colours: its owner has chosen them to be readable.
_STYLES = {
    "": "",
    "method": "bold green",
    "target": "underline",
    "version": "blue",
    "ok": "bold green",
    "redirect": "bold yellow",
    "wrong": "bold red",
    "name": "cyan",
    "note": "italic",
}
_THEME = "ansi_dark"


class Paint:
    """Turns text into text with the terminal's escapes. Owned by the run."""

    def line(self, pieces: Sequence[tuple[str, str]]) -> str:
        """One line of (style, text) pieces."""
        return _escaped(Text.assemble(*((text, _STYLES[style]) for style, text in pieces)))

    def code(self, text: str, lexer: str) -> str:
        """Text coloured by the rules of a language; not a character of it is changed or wrapped."""
        # rich takes the last line's end away and would give one to what has none.
        bare = text.rstrip("\n")
        highlighted = Syntax("", lexer, theme=_THEME, background_color="default").highlight(bare)
        highlighted.right_crop(len(highlighted.plain) - len(bare))
        return _escaped(highlighted) + text[len(bare) :]


def _escaped(text: Text) -> str:
    made = io.StringIO()
    # The text goes to the terminal by itself; rich is asked for the escapes alone.
    Console(file=made, force_terminal=True, legacy_windows=False).print(text, soft_wrap=True, end="")
    return made.getvalue()
