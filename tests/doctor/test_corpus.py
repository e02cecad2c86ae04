"""The doctor on scripts as people write them: the fault and its line on the faulty, silence on the healthy."""

from __future__ import annotations

from pathlib import Path

import pytest
from clinic import HERE, examine, expected, serious

FAULTY = sorted((HERE / "faulty").glob("*.py"))
HEALTHY = sorted((HERE / "healthy").glob("*.py"))


@pytest.fixture(scope="module")
def said() -> dict[Path, dict]:
    return examine([*FAULTY, *HEALTHY])


@pytest.mark.parametrize("path", FAULTY, ids=lambda path: path.stem)
def test_the_fault_is_named_on_its_line(said, path):
    record = said[path]
    assert record["code"] == 1, record
    first = serious(record)[0]
    assert (first["code"], first["line"]) == expected(path)
    assert Path(first["file"]) == path
    assert first["source"] in path.read_text()


@pytest.mark.parametrize("path", HEALTHY, ids=lambda path: path.stem)
def test_nothing_is_found_in_the_healthy(said, path):
    record = said[path]
    assert record["code"] == 0, record
    assert serious(record) == []
    assert record["said"]["healthy"] is True
    assert record["said"]["watched"]["updates"] > 0


def test_the_corpus_is_as_large_as_it_says():
    assert len(FAULTY) >= 60
    assert len(HEALTHY) >= 20
    assert all(expected(path) is None for path in HEALTHY)
