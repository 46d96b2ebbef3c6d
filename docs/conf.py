"""How the documentation is built. Nothing here, and no example, needs a network beyond loopback.

    PYTHONPATH=. python -m sphinx -W -b html docs docs/_build/html
    PYTHONPATH=. python -m sphinx -W -b doctest docs docs/_build/doctest
"""

from __future__ import annotations

import concurrent.futures
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from hyperpool import __version__

project = "hyperpool"
author = "the hyperpool authors"
copyright = author
release = version = __version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.doctest"]
exclude_patterns = ["_build"]
html_theme = "alabaster"
html_theme_options = {
    "description": "One HTTP/2 and HTTP/1.1 client for all threads of a process.",
    "page_width": "1060px",
    "fixed_sidebar": "true",
}
html_show_sourcelink = False

# `Name` in docstrings and pages is a link, and one that leads nowhere is an error: so renamed things are noticed.
default_role = "py:obj"
nitpicky = True
nitpick_ignore_regex = [
    # Types of annotations: the standard library's, and private names. There is no network to link them over.
    ("py:(class|data|exc|func|meth)", r".*"),
    ("py:obj", r"(None|typing\..*)"),
    # Attributes that `__init__` makes: nothing but a reader can see that they are there.
    ("py:obj", r"received"),
]

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"show-inheritance": True}
autodoc_preserve_defaults = True

doctest_test_doctest_blocks = "default"
doctest_global_setup = """
import importlib.util
import hyperpool

def missing(name):
    return importlib.util.find_spec(name) is None
"""
trim_doctest_flags = True

# "name: text" and "``name``: text" at the beginning of a line: how the docstrings here list arguments and attributes.
_ENTRY = re.compile(r"^(?:``)?([a-z_0-9]+(?:, [a-z_0-9]+)*)(?:``)?: (\S.*)$")


def _entries_as_list(lines: list[str]) -> list[str]:
    """Turn each paragraph of such entries into a list, since reStructuredText knows no such paragraphs."""
    out: list[str] = []
    in_list = False
    for line in lines:
        entry = _ENTRY.match(line)
        if not line.strip():
            in_list = False
        elif entry and (in_list or not out or not out[-1].strip()):
            in_list = True
        if in_list and entry:
            names = ", ".join(f"``{name}``" for name in entry[1].split(", "))
            out.append(f"* {names}: {entry[2]}")
        elif in_list:
            out.append("  " + line.strip())
        else:
            out.append(line)
    return out


def _read_docstring(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = _entries_as_list(lines)


def _is_there(target: str, context: str | None) -> bool:
    """Whether this dotted name can be found in the class that speaks, or in any module of hyperpool."""
    modules = [module for name, module in sorted(sys.modules.items()) if name.split(".")[0] == "hyperpool"]
    places = [getattr(module, context.rpartition(".")[2], None) for module in modules] if context else []
    for place in [*places, *modules, concurrent.futures]:
        found = place
        for part in target.split("."):
            found = getattr(found, part, None)
        if found is not None:
            return True
    return False


def _resolve(app: Any, env: Any, node: Any, content: Any) -> Any:
    """`Limits.idle_s` leads to `Limits`; what exists and has no entry of its own stays plain text."""
    target = node["reftarget"]
    if node.get("reftype") != "obj" or not _is_there(target, node.get("py:class")):
        return None
    owner, _, attribute = target.rpartition(".")
    if attribute and owner:
        python, docname = env.get_domain("py"), node["refdoc"]
        found = python.resolve_xref(env, docname, app.builder, "class", f"hyperpool.{owner}", node, content)
        if found is not None:
            return found
    return content


def setup(app: Any) -> None:
    app.connect("missing-reference", _resolve)
    app.connect("autodoc-process-docstring", _read_docstring)
