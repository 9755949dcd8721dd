"""The short form of `make fuzz`: the first inputs of each target."""

from __future__ import annotations

import hashlib
from pathlib import Path
from random import Random

import pytest

from tests.fuzz.run import fuzz
from tests.fuzz.targets import TARGETS

TRIES = {"configuration": 80, "cards": 60, "media": 40, "messages": 60, "packets": 20, "requests": 60}


@pytest.mark.parametrize("name", TRIES)
def test_first_inputs_have_no_finding(name: str, tmp_path: Path) -> None:
    """No input gives a traceback, a hang, a crash or the canary."""
    found: list[Path] = []
    tally = fuzz(
        name,
        seed=0,
        directory=tmp_path,
        goes_on=lambda tally: tally.tries < TRIES[name],
        found=found.append,
    )
    assert tally.tries == TRIES[name]
    assert not found, found[0].with_name(f"{found[0].name}.txt").read_text()


@pytest.mark.parametrize("name", TRIES)
def test_inputs_depend_on_the_seed_only(name: str) -> None:
    """The same seed gives the same 1,000 inputs again, so that a finding can be repeated."""
    first, again = Random(7), Random(7)
    digests = [hashlib.sha256(TARGETS[name].generate(first)).digest() for _ in range(1000)]
    assert digests == [hashlib.sha256(TARGETS[name].generate(again)).digest() for _ in range(1000)]
