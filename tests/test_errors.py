"""The error tree: what is caught by what, and that errors survive copying, pickling and being raised for many."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from typing import Any

import pytest

from hyperpool import errors
from hyperpool.errors import HTTPStatusError, HyperpoolError, StreamReset

WHERE: dict[str, Any] = {"origin": "https://a.test", "stream_id": 7, "processed": "maybe"}
MORE: dict[str, dict[str, Any]] = {"StreamReset": {"code": 8}, "HTTPStatusError": {"response": "a response"}}
TREE = {name: kind for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, HyperpoolError)}
EVERY = pytest.mark.parametrize("kind", TREE.values(), ids=TREE)
TIMEOUTS = {"PoolTimeout": "pool", "ConnectTimeout": "connect", "WriteTimeout": "write", "ReadTimeout": "read"}


def make(kind: type[HyperpoolError]) -> HyperpoolError:
    more = dict(MORE.get(kind.__name__, {}))
    if issubclass(kind, errors.Timeout):
        more["spent_s"] = {"pool": 1.5}
    return kind("who, what, what to do", **WHERE, **more)


def elsewhere(error: HyperpoolError) -> dict[str, Any]:
    """What an error says in another process: a response, which may be tied to a connection, stays behind."""
    said = dict(vars(error))
    if isinstance(error, HTTPStatusError):
        said["response"] = None
    return said


def parents_in_the_docstring() -> dict[str, tuple[str, ...]]:
    """Each error of the tree that the module documents, with the parents that it is drawn under."""
    found = {"HyperpoolError": ()}
    tree = (errors.__doc__ or "").partition("HyperpoolError\n")[2]
    for line in re.findall(r"[|']- (.+)", tree):
        head, _, children = line.partition(":")
        heads = [bare(part) for part in head.split(",")] if not children else [bare(head)]
        for name in heads:
            found[name] = ("HyperpoolError",)
        nested = re.findall(r"(\w+)(?: \((\w+)\))?", re.sub(r"\(also \w+\)", "", children))
        for name, grandchild in nested:
            found[name] = (heads[0],)
            if grandchild:
                found[grandchild] = (name,)
    for name, also in re.findall(r"(\w+) \(also (\w+)\)", tree):
        found[name] = (*found[name], also)
    return found


def bare(text: str) -> str:
    return text.split("(")[0].strip()


def test_the_tree_is_the_documented_one() -> None:
    real = {name: tuple(base.__name__ for base in kind.__bases__) for name, kind in TREE.items()}
    assert real == {**parents_in_the_docstring(), "HyperpoolError": ("Exception",)}


@EVERY
def test_the_root_catches_it(kind: type[HyperpoolError]) -> None:
    with pytest.raises(HyperpoolError):
        raise make(kind)


@EVERY
def test_it_says_why_it_exists(kind: type[HyperpoolError]) -> None:
    assert kind.__doc__


@EVERY
def test_it_says_who_and_where(kind: type[HyperpoolError]) -> None:
    error = make(kind)
    assert str(error) == "who, what, what to do"
    assert {name: getattr(error, name) for name in WHERE} == WHERE


@EVERY
def test_unless_told_otherwise_nothing_was_processed(kind: type[HyperpoolError]) -> None:
    """L9."""
    error = kind("x", **MORE.get(kind.__name__, {}))
    assert (error.origin, error.stream_id, error.processed) == (None, None, "no")


@EVERY
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_it_survives_pickling(kind: type[HyperpoolError], protocol: int) -> None:
    """Errors cross process borders in multiprocessing and in test runners."""
    error = make(kind)
    twin = pickle.loads(pickle.dumps(error, protocol))
    assert (type(twin), str(twin), vars(twin)) == (kind, str(error), elsewhere(error))


@EVERY
@pytest.mark.parametrize("duplicate", [copy.copy, HyperpoolError.own_copy])
def test_a_copy_says_the_same(kind: type[HyperpoolError], duplicate: Any) -> None:
    error = make(kind)
    twin = duplicate(error)
    assert twin is not error
    assert (type(twin), str(twin), vars(twin)) == (kind, str(error), vars(error))


@EVERY
def test_a_deep_copy_says_the_same(kind: type[HyperpoolError]) -> None:
    error = make(kind)
    twin = copy.deepcopy(error)
    assert (type(twin), str(twin), vars(twin)) == (kind, str(error), elsewhere(error))


@EVERY
def test_an_own_copy_keeps_the_cause(kind: type[HyperpoolError]) -> None:
    error = make(kind)
    error.__cause__ = cause = OSError("socket")
    assert error.own_copy().__cause__ is cause


@EVERY
def test_an_own_copy_has_a_traceback_of_its_own(kind: type[HyperpoolError]) -> None:
    """Each waiter raises its instance in its thread; one shared instance would mix their tracebacks."""
    with pytest.raises(kind) as caught:
        raise make(kind)
    assert caught.value.own_copy().__traceback__ is None


@EVERY
def test_an_own_copy_may_say_where_it_belongs(kind: type[HyperpoolError]) -> None:
    error = make(kind)
    twin = error.own_copy(stream_id=9)
    assert (twin.stream_id, error.stream_id) == (9, 7)


@pytest.mark.parametrize("name", [*TIMEOUTS, "TotalTimeout", "Timeout"])
def test_a_timeout_is_the_builtin_timeout_as_well(name: str) -> None:
    with pytest.raises(TimeoutError):
        raise make(TREE[name])


@pytest.mark.parametrize("name", ["LocalProtocolError", "InvalidURL"])
def test_what_the_caller_gave_wrong_is_a_value_error(name: str) -> None:
    with pytest.raises(ValueError):
        raise make(TREE[name])


@pytest.mark.parametrize(("name", "phase"), [*TIMEOUTS.items(), ("TotalTimeout", "total")])
def test_a_timeout_names_its_phase(name: str, phase: str) -> None:
    assert make(TREE[name]).phase == phase


def test_a_timeout_keeps_the_time_spent_in_a_book_of_its_own() -> None:
    spent = {"pool": 1.0}
    error = errors.ReadTimeout("x", spent_s=spent)
    spent["pool"] = 2.0
    assert error.spent_s == {"pool": 1.0}


def test_a_timeout_may_have_spent_nothing() -> None:
    assert errors.ReadTimeout("x").spent_s == {}


def test_a_reset_carries_its_code() -> None:
    assert StreamReset("x", code=8).code == 8


def test_a_status_error_carries_its_response() -> None:
    assert HTTPStatusError("x", response="a response").response == "a response"
