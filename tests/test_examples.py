"""Every example is short and runs as it stands, in an empty folder, with a tiny budget."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from sizes import now_and_then

EXAMPLES = Path(__file__).parent.parent / "examples"
SAYS = {  # steps, what it prints, and what it leaves
    "cartpole_online": (300, r"return \d+ ± \d+ of 500", []),
    "heliostat": (2000, r"(?s)before training: mean \d+.*after training: mean \d+", ["curve.png", "density.png"]),
    "original_question": (300, r"(?s)broken: median .*mended: median ", []),
    "own_environment": (600, r"(?s)return_mean.*trolley to [-\d.]+ degrees", []),
    "own_networks": (20, r"update +19: mean reward +-?\d", []),
}


def test_every_example_is_known_here():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(SAYS)


@pytest.mark.parametrize("name", now_and_then(SAYS, ["heliostat", "original_question", "own_environment"]))
def test_example(name, tmp_path):
    path = EXAMPLES / f"{name}.py"
    assert len(path.read_text().splitlines()) < 80, "an example is read in one go"
    steps, says, leaves = SAYS[name]
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path), str(steps)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(says, done.stdout), done.stdout
    for left in leaves:
        assert list(tmp_path.glob(f"runs/*/{left}")), left
