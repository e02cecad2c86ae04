"""Who may import whom, read from the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import covary

ROOT = Path(covary.__file__).parent
FILES = {str(path.relative_to(ROOT)): path for path in sorted(ROOT.rglob("*.py"))}
OF_COVARY = {  # the rooms a file may import, beside itself; a folder speaks for its files
    "errors": set(),
    "types": set(),
    "returns": set(),
    "optim": set(),
    "traces": {"optim"},
    "natural": {"optim"},
    "priorities": set(),
    "replay": {"errors", "priorities", "types"},
    "past": {"errors", "policies", "replay", "returns", "types"},
    "progress": set(),
    "distributions": set(),
    "nets": {"errors"},
    "heads": {"distributions", "errors", "nets"},
    "more_heads": {"distributions", "errors", "heads", "nets"},
    "policies": {"distributions", "errors", "heads", "more_heads", "nets"},
    "birthplace": set(),
    "guard": {"birthplace", "errors"},
    "advantages": {"guard", "returns", "types"},
    "algorithms": {
        "advantages",
        "distributions",
        "errors",
        "guard",
        "heads",
        "nets",
        "natural",
        "optim",
        "past",
        "policies",
        "returns",
        "traces",
        "types",
    },
    "envs": {"errors"},
    "runs": {"errors"},
    "typed": {"errors"},
    "description": {"algorithms", "errors", "heads", "typed"},
    "presets": set(),
    "plots": {"errors", "runs"},
    "policy_plots": {"plots", "runs"},
    "portrait": {"agent", "distributions", "errors", "evaluation", "runs"},
    "fast": {"advantages", "types", "distributions", "heads", "more_heads", "nets", "optim", "policies", "traces"},
    "profile": set(),
    "watchdog": {"errors", "distributions", "policies", "agent", "settings"},
    "doctor": set(),
}


def imported(path: Path) -> set[str]:
    """Full dotted names, wherever in the file they stand, but not those that only type checkers see."""
    names: set[str] = set()
    tree = ast.parse(path.read_text())
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("name", FILES)
def test_import_directions(name):
    parts = Path(name).with_suffix("").parts
    room, names = parts[0], imported(FILES[name])
    rooms = {n.split(".")[1] for n in names if n.startswith("covary.")} - {room, "__version__"}
    if room in OF_COVARY:
        assert rooms <= OF_COVARY[room]
    if room != "envs":
        assert not {n for n in names if n.split(".")[0] == "gymnasium"}
    if room == "distributions":
        standard = sys.stdlib_module_names | {"torch", "numpy", "covary"}
        assert {n.split(".")[0] for n in names} <= standard
    if room == "doctor":
        assert {n.split(".")[0] for n in names} <= sys.stdlib_module_names | {"torch", "numpy", "rich", "covary"}
    if room == "algorithms" and parts[-1] != "__init__":
        assert not {n for n in names if n.startswith("covary.algorithms")}, "algorithms do not import each other"
    if room in ("runs", "finding", "checkpoints", "tensorfile", "files", "typed"):
        assert not {n for n in names if n.split(".")[0] == "torch"}, "whoever watches a run needs no torch"


def test_every_room_is_seen():
    assert set(OF_COVARY) <= {Path(name).with_suffix("").parts[0] for name in FILES}


@pytest.mark.parametrize(
    "code",
    [
        "import covary",
        "from covary.cli import run; assert run(['--help']) == 0",
        "from covary.cli import run; assert run(['--version']) == 0",
        "from covary.cli import run; assert run(['doctor', '--help']) == 0",
        "from covary.cli import run; assert run(['doctor', '--explain']) == 0",
        "import covary.doctor",
        "from covary.runs import Run",
        "import covary.policy_plots",
        "from covary.cli import run; assert run(['trian']) == 2",
    ],
)
def test_no_torch_where_none_is_needed(code):
    check = f"{code}; import sys; assert not {{'torch', 'gymnasium', 'matplotlib'}} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_public_names_are_there_and_unknown_ones_say_what_is():
    for name in covary.__all__:
        assert getattr(covary, name) is not None
    with pytest.raises(AttributeError, match=r"trian.*train"):
        covary.trian  # noqa: B018
