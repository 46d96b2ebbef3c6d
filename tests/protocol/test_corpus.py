"""The fuzzers' corpus, as tests: good conversations to begin with, and every input that once was a finding.

What must hold of each is written in `stress.harnesses`. An input joins the corpus as its file from `python -m
stress.fuzz`, under a name that says what it is.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from stress.fuzz import CORPUS, Inputs, corpus, load
from stress.harnesses import HARNESSES

FILES = [(harness, path) for harness in HARNESSES for path in corpus(harness)]


@pytest.mark.parametrize(("harness", "path"), [pytest.param(*file, id=f"{file[0]}-{file[1].stem}") for file in FILES])
def test_an_input_of_the_corpus_is_answered_as_it_should_be(harness: str, path: Path) -> None:
    assert HARNESSES[harness](load(path))


@pytest.mark.slow
@pytest.mark.parametrize("harness", HARNESSES)
def test_a_few_changes_of_the_corpus_are_answered_as_they_should_be(harness: str) -> None:
    inputs = Inputs(harness, 1, [load(path) for path in corpus(harness)])
    for _ in range(150):
        data = inputs.next()
        inputs.gave(data, HARNESSES[harness](data))


def test_every_harness_has_a_corpus_and_every_folder_a_harness() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(HARNESSES)
    assert all(corpus(harness) for harness in HARNESSES)


def test_an_input_follows_from_its_seed() -> None:
    seeds = [random.Random(1).randbytes(40)]
    first, second = Inputs("h2", 7, list(seeds)), Inputs("h2", 7, list(seeds))
    assert [first.next() for _ in range(50)] == [second.next() for _ in range(50)]


def test_a_hex_file_may_have_comments(tmp_path: Path) -> None:
    path = tmp_path / "one.hex"
    path.write_text("# two bytes\n00 # zero\nff\n")
    assert load(path) == b"\x00\xff"
