"""How the documentation is built. Nothing here, and no example, needs a network beyond loopback.

    PYTHONPATH=. python -m sphinx -W -b html docs docs/_build/html
    PYTHONPATH=. python -m sphinx -W -b doctest docs docs/_build/doctest

The pages are Markdown that a code host shows as well. What only Sphinx needs stands in comments, which `_uncover` makes
directives of: set-up, checks of the page itself, the tree of contents.
"""

from __future__ import annotations

import builtins
import concurrent.futures
import importlib
import inspect
import pkgutil
import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.errors import ExtensionError

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import hyperpool

project = "hyperpool"
author = "the hyperpool authors"
copyright = author
release = version = hyperpool.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.doctest"]
# Links to headings, `errors.md#timeouts`, work as on a code host, and one that leads nowhere is an error.
myst_heading_anchors = 2
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
    # In the pages, what looks like ours: header fields, other packages, a logger, and what not-yet.md names.
    ("py:obj", r"Authorization|Cookie|Trailer|OpenSSL\..*|hyperpool\.frames"),
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

# `<!-- {directive}`, its lines, and `-->`; and `<!-- :option: value -->` above the fence that it is for.
_HIDDEN = re.compile(r"^<!-- (\{\w+\}\n.*?)^-->$", re.MULTILINE | re.DOTALL)
_OPTION = re.compile(r"^<!-- (:\w+:.*) -->\n(```\{\w+\})$", re.MULTILINE)
_MISSED = re.compile(r"^.*<!--\s*[{:].*$", re.MULTILINE)


def _uncover(app: Any, docname: str, source: list[str]) -> None:
    """Make directives of such comments, line by line in their places. One that is written wrongly is an error."""
    text = _OPTION.sub(r"\2\n\1", _HIDDEN.sub(r"```\1```", source[0]))
    if missed := _MISSED.search(text):
        raise ExtensionError(f"{docname}: neither a comment nor a directive: {missed[0]}")
    source[0] = text


# `Client`, `Limits.idle_s` or `hyperpool.testing.Server` as code in a page: names of classes, and of what is in them.
_NAME = re.compile(r"(?:hyperpool\.(?:[a-z_]+\.)*)?[A-Z]\w*[a-z]\w*(?:\.\w+)*|hyperpool(?:\.\w+)+")


def _link_names(app: Any, doctree: Any) -> None:
    """Make references of such code, for which Markdown has no role. Docstrings have theirs."""
    for literal in list(doctree.findall(nodes.literal)):
        name, above = literal.astext(), literal.parent
        while above is not None and not isinstance(above, (addnodes.desc, addnodes.pending_xref, nodes.reference)):
            above = above.parent
        if above is None and _NAME.fullmatch(name):
            where = {"refdoc": app.env.docname, "py:module": "hyperpool", "py:class": None}
            xref = addnodes.pending_xref("", refdomain="py", reftype="obj", reftarget=name, refwarn=True, **where)
            xref.source, xref.line = literal.source or doctree["source"], literal.line or literal.parent.line
            literal.replace_self(xref)
            xref += literal


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


# The pages speak of what is inside, too, and of hyper's names and the faces for other libraries.
_MODULES = {module.name for module in pkgutil.walk_packages(hyperpool.__path__, "hyperpool.")}
for _module in sorted(_MODULES):
    if re.match(r"hyperpool\.(protocol|handoff|engine|http20|http11|common|http_client|contrib|aio)\b", _module):
        importlib.import_module(_module)


def _is_there(target: str, context: str | None) -> bool:
    """Whether this dotted name can be found in the class that speaks, or in any module of hyperpool."""
    if target in _MODULES:
        return True
    modules = [module for name, module in sorted(sys.modules.items()) if name.split(".")[0] == "hyperpool"]
    places = [getattr(module, context.rpartition(".")[2], None) for module in modules] if context else []
    path = target.removeprefix("hyperpool.").split(".")
    return any(_has(place, path) for place in [*places, *modules, concurrent.futures, builtins])


def _has(place: Any, path: list[str]) -> bool:
    """An attribute that only instances have is one that the source of the class assigns."""
    for part in path:
        if inspect.isclass(place) and not hasattr(place, part):
            return re.search(rf"\bself\.{part}\b", inspect.getsource(place)) is not None
        place = getattr(place, part, None)
    return place is not None


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
    app.connect("source-read", _uncover)
    app.connect("doctree-read", _link_names)
    app.connect("missing-reference", _resolve)
    app.connect("autodoc-process-docstring", _read_docstring)
