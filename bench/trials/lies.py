"""Every lying environment of tests/lies.py, in both algorithms: is it held, or told off in one message?

for row in run(10_000, 0): print(row)
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import covary
from covary.envs.checks import check_env
from covary.errors import UsageError

STEPS = 64
SHORT = {"ppo": {"horizon": 8, "minibatch": 8, "epochs": 1}, "actor_critic": {}}


def run(n: int, seed: int) -> Iterator[dict[str, Any]]:
    """A row for each kind and algorithm, again with another seed until there are n.

    kind, algo, seed, expected, message (of the training; empty where it is held), findings (of check_env), right
    (whether the expected came, and nothing else), seconds.
    """
    single, vectors = _tables()
    kinds = [(name, lie.make, lie.training, lie.check) for name, lie in single.items()]
    kinds += [(name, make, expected, None) for name, (make, expected) in vectors.items()]
    endless = ((*kind, algo, s) for s in itertools.count(seed) for kind in kinds for algo in SHORT)
    for name, make, expected, check, algo, s in itertools.islice(endless, n):
        began, folder = time.perf_counter(), os.getcwd()
        message, error = _trained(make, algo, s, vector=check is None)
        os.chdir(folder)  # one of them goes elsewhere
        right = message == "" if expected.startswith("held") else expected in message
        right, findings = right and error in ("", "UsageError"), []
        if check is not None and name != "cannot be made":
            findings = _findings(make, s)
            right = right and (any(check in text for text in findings) if check else not findings)
        yield {
            "kind": name,
            "algo": algo,
            "seed": s,
            "expected": expected,
            "message": _here(message),
            "findings": [_here(text) for text in findings],
            "right": right,
            "seconds": time.perf_counter() - began,
        }


def _here(text: str) -> str:
    """Without the folder that the project lies in."""
    root = str(Path(__file__).parents[2])
    return text.replace(f"{root}/", "").replace(root, ".")


def _tables() -> tuple[dict[str, Any], dict[str, Any]]:
    """Of tests/lies.py, which has this file's name."""
    spec = importlib.util.spec_from_file_location("lying", Path(__file__).parents[2] / "tests" / "lies.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["lying"] = module
    spec.loader.exec_module(module)
    return module.LIES, module.VECTOR_LIES


def _trained(make: Callable[[], Any], algo: str, seed: int, *, vector: bool) -> tuple[str, str]:
    """What was said, and the kind of exception that said it; both empty where training went on."""
    with tempfile.TemporaryDirectory() as out, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            options: dict[str, Any] = {} if vector else {"n_envs": 2, "vectorization": "sync"}
            env = make() if vector else make
            covary.train(env, algo, STEPS, seed, out=f"{out}/run", quiet=True, **SHORT[algo], **options)
        except UsageError as error:
            return str(error), "UsageError"
        except Exception as error:
            return f"{type(error).__name__}: {error}", type(error).__name__
    return "", ""


def _findings(make: Callable[[], Any], seed: int) -> list[str]:
    return [f"{finding.rule} {finding.given}" for finding in check_env(make(), seed=seed, steps=40)]


if __name__ == "__main__":
    rows = list(run(int(sys.argv[1]), 0))
    print(f"{sum(row['right'] for row in rows)} of {len(rows)} right")
    for row in rows:
        if not row["right"]:
            print(row)
