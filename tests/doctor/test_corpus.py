"""The doctor on scripts as people write them: the fault and its line on the faulty, silence on the healthy."""

from __future__ import annotations

from operator import attrgetter
from pathlib import Path

import pytest
from clinic import HERE, examine, expected, serious
from sizes import now_and_then

FAULTY = sorted((HERE / "faulty").glob("*.py"))
HEALTHY = sorted((HERE / "healthy").glob("*.py"))


stem = attrgetter("stem")

# of every sixth class; which is every time, so that what fails in one run fails in the next
ONE_OF_EACH = {path.stem.partition("__")[0]: path for path in FAULTY}


@pytest.fixture(scope="module")
def said(request) -> dict[Path, dict]:
    """What was said of every script that a selected test asks for, all of them run at once."""
    wanted = {item.callspec.params["path"] for item in request.session.items if hasattr(item, "callspec")
              and "path" in item.callspec.params and item.path == request.path}  # fmt: skip
    return examine(sorted(wanted))


@pytest.mark.parametrize("path", now_and_then(FAULTY, [*ONE_OF_EACH.values()][::6]), ids=stem)
def test_the_fault_is_named_on_its_line(said, path):
    record = said[path]
    assert record["code"] == 1, record
    assert record["troubles"] == [], "a rule, or a hook, failed"
    first = serious(record)[0]
    assert (first["code"], first["line"]) == expected(path)
    assert Path(first["file"]) == path
    assert first["source"] in path.read_text()


@pytest.mark.parametrize("path", now_and_then(HEALTHY, HEALTHY[::40]), ids=stem)
def test_nothing_is_found_in_the_healthy(said, path):
    record = said[path]
    assert record["code"] == 0, record
    assert record["troubles"] == [], "a rule, or a hook, failed"
    assert serious(record) == []
    assert record["said"]["healthy"] is True
    assert record["said"]["watched"]["backwards"] > 0


def test_the_corpus_is_as_large_as_it_says():
    assert len(FAULTY) >= 60
    assert len(HEALTHY) >= 20
    assert all(expected(path) is None for path in HEALTHY)
