"""Kernels are kept on the disk and made again; without Numba a run goes the general way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba import void
from short_runs import SMALL, chosen
from twins import both, box

import covary
from covary.fast import cache, compiled
from covary.fast.compiled import Vector, kernel

PROGRAM = """
import json, sys
{before}
import covary
from worlds import Line
covary.train(Line, "actor_critic", steps=60, n_envs=2, out="run", hidden=(4,), critic={{"hidden": (4,)}})
"""


def run_apart(here, before="", **variables):
    """A short training in a process of its own; what it printed."""
    program = PROGRAM.format(before=before)
    kept = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "OMP_NUM_THREADS")}
    paths = [str(Path(covary.__file__).parents[1]), str(Path(__file__).parents[1])]
    environment = kept | {"PYTHONPATH": os.pathsep.join(paths)} | variables
    made = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], cwd=here, env=environment, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    assert "Warning" not in made.stderr
    return made.stdout


@pytest.mark.parametrize(
    ("before", "variables", "why"),
    [
        ("sys.modules['numba'] = None", {}, "no Numba (import of numba halted; None in sys.modules)"),
        ("", {"NUMBA_DISABLE_JIT": "1"}, "no Numba (NUMBA_DISABLE_JIT is set)"),
    ],
)
def test_without_numba_the_general_path_runs_and_one_line_says_so(before, variables, why, here):
    said = run_apart(here, before, **variables)
    assert [line for line in said.splitlines() if "path" in line and "run" not in line] == [
        f"general path ({why}), 1 thread"
    ]
    assert chosen()["why"] == why


@pytest.mark.slow
def test_without_a_folder_to_keep_kernels_in_they_are_compiled_again_and_one_line_says_so(here):
    """And the number of threads is the user's."""
    Path("file").write_text("")
    below = str(here / "file" / "cache")
    said = run_apart(here, NUMBA_CACHE_DIR=below, HOME=below, MPLCONFIGDIR=str(here), OMP_NUM_THREADS="2")
    assert (
        said.count("fast path (kernels, compiled for this run alone: no cache folder can be written), 2 threads") == 1
    )
    assert chosen() == {"path": "fast", "why": "", "threads": 2, "processes": 1}


def test_kernels_are_kept_where_something_can_be_written(here, monkeypatch):
    Path("file").write_text("")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(here / "file"))
    assert cache.folder() is None
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / "file" / "cache"))
    assert cache.folder() is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / "cache"))
    assert Path(cache.folder()).parent == here / "cache" / "covary"
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(here / "chosen"))
    assert Path(cache.folder()).parent == here / "chosen"


def doubled(x):
    x[0] *= 2


@pytest.mark.parametrize("file", ["nbi", "nbc"])
def test_a_kept_kernel_that_was_cut_short_is_made_again(file, tmp_path, monkeypatch):
    monkeypatch.setattr(compiled, "_FOLDER", tmp_path)
    kernel(void(Vector))(doubled)
    for content in (b"", b"\x80\x04"):
        kept = list(tmp_path.glob(f"*/test_kept_kernels.doubled-*.{file}"))
        assert kept
        for path in kept:
            path.write_bytes(content)
        x = np.ones(1, np.float32)
        kernel(void(Vector))(doubled)(x)
        assert x[0] == 2


def test_what_is_kept_is_not_compiled_again(monkeypatch):
    """The rooms of every algorithm are loaded in this process."""
    monkeypatch.setattr(cache, "_children", [])
    monkeypatch.setattr(cache.os, "sched_getaffinity", lambda process: {0, 1}, raising=False)
    for algo in SMALL:
        both(algo, box(2), n=SMALL[algo].get("n_envs", 1))
        cache.compile_ahead(algo)
    assert not cache._children
