"""Checkpoints that were changed, at random and on purpose: each is loaded as it was written, or refused in one message.

    python bench/trials/files.py                   100,000 inputs
    python bench/trials/files.py --n 2000 --seed 7

A *raw* change leaves manifest.json as it is, as an accident would; what then loads although a byte differs is silently
wrong. A *sealed* one has the manifest made anew, as an attacker would, so that the checks behind it are reached; that
may load, but may not do anything else. While an input is loaded, nothing may be imported, started or written.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete

import covary

Files = dict[str, bytes]
META, TENSORS, MANIFEST = "agent.json", "agent.safetensors", "manifest.json"
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # a folder that no disk slows
GROWTH = 2**30  # bytes of memory that no input may take

HOSTILE: list[Any] = [
    *(None, True, False, 0, -1, 1, 2, 1e300, -0.0, 0.5, 10**6, 10**9, 10**12, 2**31, 2**63, 2**64, 10**30, 10**70),
    *("", "x", "1", "inf", "-inf", "nan", "../../etc/passwd", "/dev/zero", "os.system", "__import__('os')", "\u0000"),
    *("x" * 100_000, "\u202e", [], {}, [[]], [0], [1e9], [10**6, 10**6], [10**9], [10**12, 10**12], [-1], ["a"]),
    *([None], [1] * 5000, {"a": 1}, {"__class__": "os.system"}, {"py/object": "os.system"}, "float32", "object"),
    *("V8", "O", "datetime64", "complex128", "ppo", "actor_critic", "Discrete", "Box", "full", "fixed", [64, 64]),
]
TEXTS = [
    *(b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999", b"9" * 5000, b"9" * 100, b"[" * 100_000, b"[" * 70),
    *(b'{"a":' * 5000, b'{"a":' * 70 + b"1" + b"}" * 70, b'"\\ud800"', b'"\xff\xfe"', b"[" * 900 + b"]" * 900),
    *(b'{"a": 1, "a": 2}', b"0x10", b"1.", b"'x'", b"", b"[],,", b"0." + b"1" * 10_000, b"1e-999"),
]


def originals() -> list[Files]:
    """Checkpoints of both algorithms: a diagonal and a full covariance, angles, choices seen and made, spare noise."""
    box, flat = Box(-1, 1, (3,), np.float32), {"hidden": (4,)}
    policy = covary.PolicyConfig(hidden=(4,))
    full = covary.PolicyConfig(hidden=(4, 3), covariance="full", periodic=(0,))
    from covary.agent import CriticConfig

    critic = CriticConfig(**flat)
    made = [
        covary.Agent("ppo", box, Box(-2, 2, (1,), np.float32), policy=policy, critic=critic, seed=1),
        covary.Agent("ppo", box, Box(-2, 2, (2,), np.float32), policy=full, critic=critic, seed=2),
        covary.Agent("actor_critic", box, Discrete(3), policy=policy, critic=critic, seed=3),
        covary.Agent("actor_critic", Discrete(5), Box(0, np.inf, (2,), np.float64), policy=policy, critic=critic),
    ]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for i, agent in enumerate(made):
            agent.learner.optimizer.second.uniform_(0, 1)
            if agent.algo == "actor_critic":
                agent.next_noise(1)
            place = agent.save(Path(folder) / str(i))
            found.append({name: (place / name).read_bytes() for name in (META, TENSORS, MANIFEST)})
    return found


def seal(files: Files) -> Files:
    """The same with a manifest that says they are what was written."""
    try:
        version = json.loads(files[META])["covary"]
    except (ValueError, KeyError, TypeError, RecursionError):
        version = covary.__version__
    listed = {
        name: {"bytes": len(files[name]), "sha256": hashlib.sha256(files[name]).hexdigest()}
        for name in (META, TENSORS)
        if name in files
    }
    text = json.dumps({"format": 2, "covary": version, "files": listed}, indent=2) + "\n"
    return files | {MANIFEST: text.encode(errors="replace")}


# ---------------------------------------------------------------------------------------- changes of bytes


NEAR: dict[str, list[Any]] = {  # values of the right type, so that what is behind the types is reached
    "algo": ["ppo", "actor_critic"],
    "hidden": [[], [4], [4, 3], [3], [1, 1, 1], [4] * 300],
    "activation": ["relu", "tanh", "gelu"],
    "covariance": ["fixed", "diagonal", "full"],
    "bounds": ["clip", "free", "mean", "squash", ["clip", "free"], ["clip"] * 3, []],
    "periodic": [[], [0], [1], [0, 1], [0, 0], [5], [-1], [-5]],
    "init_std": [0.5, 0.49, 1e-30, 1e30, 1e300, 5e-324, [0.1, 0.2], [0.1] * 3, []],
    "covariance_matrix": [
        [1],
        [1, 2],
        [1, 0, 0, 1],
        [1, 0.5, 0.5, 1],
        [0] * 4,
        [1, 2, 2, 1],
        [1e300] * 4,
        [5e-324],
        [],
    ],
    "low": [-1.0, 0.0, 1.0, "-inf", "inf", -3e38, 3.4028234e38, [0.0, 0.0], [-1.0, "-inf"], 1e-45, 0],
    "high": [1.0, 0.0, 1e-45, "inf", "-inf", 3e38, [1.0, 1.0], [1.0, "inf"], 255, 1],
    "shape": [[], [1], [2], [3], [1, 2], [2, 1], [0], [3, 0], [1] * 32, [1] * 33],
    "dtype": ["float32", "float64", "float16", "int8", "uint64", "bool"],
    "n": [1, 2, 3, 5, 6],
    "start": [-1, 0, 1, 2**40, -(2**61)],
    "noise": [0, 1, 255, 256],
    "horizon": [None, 1, 2**20],
    "state_dependent": [True, False],
    "normalize_obs": [True, False],
    "custom_torso": [True, False],
    "seed": [0, 2**128, 2**200],
    "count": [0.0, 1.0, 1e300, 1e-300],
    "m2": [0.0, 1e300, 5e-324],
    "episodes_started": [[], [0], [1] * 1000],
}

Rng = np.random.Generator
Change = Callable[[Rng, Files, Files], Files]


def _pick(rng: Rng, values: list[Any]) -> Any:
    return values[rng.integers(len(values))]


def _which(rng: Rng) -> str:
    return str(rng.choice([META, TENSORS, MANIFEST]))


def flip(rng: Rng, files: Files, other: Files) -> Files:
    """One to eight bits of a file."""
    name = _which(rng)
    data = bytearray(files[name])
    for i in rng.integers(0, len(data), rng.integers(1, 9)):
        data[i] ^= 1 << int(rng.integers(8))
    return files | {name: bytes(data)}


def truncate(rng: Rng, files: Files, other: Files) -> Files:
    name = _which(rng)
    return files | {name: files[name][: rng.integers(0, len(files[name]))]}


def grow(rng: Rng, files: Files, other: Files) -> Files:
    name = _which(rng)
    more = bytes(rng.integers(0, 256, rng.integers(1, 200), np.uint8)) if rng.random() < 0.5 else b" " * 8
    at = int(rng.choice([0, len(files[name]), rng.integers(0, len(files[name]))]))
    return files | {name: files[name][:at] + more + files[name][at:]}


def noise(rng: Rng, files: Files, other: Files) -> Files:
    return files | {_which(rng): bytes(rng.integers(0, 256, rng.integers(0, 2000), np.uint8))}


def missing(rng: Rng, files: Files, other: Files) -> Files:
    name = _which(rng)
    return {n: data for n, data in files.items() if n != name}


def swap_files(rng: Rng, files: Files, other: Files) -> Files:
    """One file of another checkpoint, or two of this one under each other's names."""
    name, second = _which(rng), _which(rng)
    if rng.random() < 0.7 or name == second:
        return files | {name: other[name]}
    return files | {name: files[second], second: files[name]}


# ------------------------------------------------------------------------------------- changes of meaning


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield (*path, key)
        yield from _paths(inner, (*path, key))


def _change_json(rng: Rng, data: dict[str, Any]) -> bytes:
    """One to three entries at any depth: gone, another's, likely, hostile, or hostile text that is no JSON."""
    text = None
    for _ in range(rng.integers(1, 4)):
        paths = list(_paths(data))
        if not paths:
            break
        *front, last = _pick(rng, paths)
        at: Any = data
        for key in front:
            at = at[key]
        how = rng.random()
        if how < 0.15:
            del at[last]
        elif how < 0.25 and isinstance(at, dict):
            at[str(rng.choice(["x", "../x", "/x", "format", "__class__", "", "n" * 1000]))] = at[last]
        elif how < 0.35:
            text = _pick(rng, TEXTS)
            at[last] = "@@"
        else:
            near = NEAR.get(str(last)) if how < 0.75 else None
            at[last] = json.loads(json.dumps(_pick(rng, near or HOSTILE)))
    raw = json.dumps(data, indent=2 if rng.random() < 0.5 else None).encode()
    return raw if text is None else raw.replace(b'"@@"', text)


def change_meta(rng: Rng, files: Files, other: Files) -> Files:
    return files | {META: _change_json(rng, json.loads(files[META]))}


def change_manifest(rng: Rng, files: Files, other: Files) -> Files:
    return files | {MANIFEST: _change_json(rng, json.loads(files[MANIFEST]))}


def _split(data: bytes) -> tuple[dict[str, Any], bytes]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def _join(header: bytes, body: bytes) -> bytes:
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + body


def change_header(rng: Rng, files: Files, other: Files) -> Files:
    header, body = _split(files[TENSORS])
    if rng.random() < 0.2:
        size = _pick(rng, [0, 1, 2**20, 2**20 + 8, 2**31, 2**63, 2**64 - 1, len(files[TENSORS])])
        return files | {TENSORS: size.to_bytes(8, "little") + files[TENSORS][8:]}
    return files | {TENSORS: _join(_change_json(rng, header), body)}


def change_tensors(rng: Rng, files: Files, other: Files) -> Files:
    """Swapped, reshaped, cast, renamed, dropped, added, or with numbers in them that no training leaves."""
    from safetensors.numpy import load, save

    arrays = dict(load(files[TENSORS]))
    names = list(arrays)
    a, b = (str(rng.choice(names)) for _ in range(2))
    how = rng.integers(8)
    if how == 0:
        arrays[a], arrays[b] = arrays[b], arrays[a]
    elif how == 1:
        arrays |= {k: v for k, v in load(other[TENSORS]).items() if k == a or rng.random() < 0.2}
    elif how == 2:
        arrays[a] = arrays[a].astype(rng.choice([np.float16, np.float64, np.int64, np.uint8, np.bool_]))
    elif how == 3:
        arrays[a] = np.resize(arrays[a], tuple(rng.integers(0, 5, rng.integers(0, 4)).tolist()))
    elif how == 4:
        arrays["x" * int(rng.integers(1, 300)) if rng.random() < 0.5 else "policy.evil"] = arrays.pop(a)
    elif how == 5:
        del arrays[a]
    else:
        changed = np.array(arrays[a])
        bad = [np.nan, np.inf, -np.inf, 3e38, -3e38, -1, 0, 1e-45, 255] if changed.dtype.kind == "f" else [0, -1, 255]
        with np.errstate(all="ignore"):
            where = rng.random(changed.shape) < rng.choice([0.1, 1.0])
            changed[where] = np.array(rng.choice(bad)).astype(changed.dtype)
        arrays[a] = changed
    return files | {TENSORS: save({k: np.asarray(v, order="C") for k, v in arrays.items()})}


def amounts(rng: Rng, files: Files, other: Files) -> Files:
    """What would take all memory, were it believed."""
    meta = json.loads(files[META])
    big = _pick(rng, [10**6, 10**7, 10**9, 10**12, 2**40, 2**62, 10**30])
    box = {"kind": "Box", "low": -1.0, "high": 1.0, "shape": [big], "dtype": "float32"}
    changes: list[Callable[[], Any]] = [
        lambda: meta["policy"].update(hidden=[big, big]),
        lambda: meta["critic"].update(hidden=[big]),
        lambda: meta["critic"].update(hidden=[1] * min(big, 10**6)),
        lambda: meta["config"].update(n_envs=big),
        lambda: meta["config"].update(horizon=big),
        lambda: meta.update(observation_space=box),
        lambda: meta.update(action_space=box),
        lambda: meta.update(observation_space={"kind": "Discrete", "n": big, "start": 0}),
        lambda: meta.update(action_space={"kind": "Discrete", "n": big, "start": 0}),
        lambda: meta["observation_space"].update(shape=[big, big]),
        lambda: meta.update(noise=big),
        lambda: meta.update(custom_torso=True, observation_space=box),
    ]
    for i in rng.integers(0, len(changes), rng.integers(1, 3)):
        changes[i]()
    return files | {META: json.dumps(meta).encode()}


BYTES: dict[str, Change] = {
    "bit flips": flip,
    "truncation": truncate,
    "growth": grow,
    "noise": noise,
    "missing": missing,
    "swapped files": swap_files,
}
MEANING: dict[str, Change] = {
    "agent.json": change_meta,
    "header of tensors": change_header,
    "tensors": change_tensors,
    "amounts": amounts,
}
KINDS: dict[str, tuple[Change, bool]] = (
    {f"raw: {name}": (change, False) for name, change in (BYTES | MEANING).items()}
    | {"raw: manifest.json": (change_manifest, False)}
    | {f"sealed: {name}": (change, True) for name, change in (BYTES | MEANING).items()}
)


# ------------------------------------------------------------------------------------------------ watching


class Watch:
    """Notes what happens in this process while it is on: modules, programs, files written, names unpickled."""

    EVENTS = ("import", "os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "pickle.find_class")
    EVENTS += ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "socket.connect", "ctypes.dlopen", "shutil.rmtree")

    def __init__(self) -> None:
        self.on, self.seen = False, []  # type: ignore[var-annotated]
        sys.addaudithook(self._hook)  # for as long as the process lives

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event == "open":
            if isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self.seen.append(f"open for writing {args[0]!r}")
        elif event in self.EVENTS:
            self.seen.append(f"{event} {str(args[:1])[:80]}")


_WATCH: list[Watch] = []  # a hook can be added, but not taken off


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _put(folder: Path, files: Files) -> None:
    for name in (META, TENSORS, MANIFEST):
        path = folder / name
        if name in files:
            path.write_bytes(files[name])
        else:
            path.unlink(missing_ok=True)


def _load(place: Path, watch: Watch) -> str:
    """refused, loaded, or what went wrong."""
    watch.on = True
    try:
        agent = covary.load(place)
        agent.act(np.zeros(agent.observation_space.shape, agent.observation_space.dtype))
        return "loaded"
    except covary.UsageError as error:
        if len(str(error)) > 2000:
            return f"a message of {len(str(error)):,} characters"
        return "refused"
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    finally:
        watch.on = False


def run(n: int, seed: int) -> Iterator[dict[str, Any]]:
    """A row for each kind of change, over `n` inputs in all."""
    rng, made = np.random.default_rng(seed), originals()
    watch = _WATCH[0] if _WATCH else Watch()
    _WATCH[:] = [watch]
    folder = Path(tempfile.mkdtemp(dir=MEMORY))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of numbers that overflow where weights are absurd
            for files in made:  # whatever is imported once, is imported now
                _put(folder, files)
                assert _load(folder, watch) == "loaded"
                _put(folder, seal(files))
                assert _load(folder, watch) == "loaded", "the trial's own manifest is not as Covary writes it"
            each = [n // len(KINDS) + (i < n % len(KINDS)) for i in range(len(KINDS))]
            for (kind, (change, sealed)), inputs in zip(KINDS.items(), each, strict=True):
                yield {"kind": kind} | _row(rng, made, change, sealed, inputs, folder, watch)
    finally:
        shutil.rmtree(folder)


def _row(
    rng: Rng, made: list[Files], change: Change, sealed: bool, inputs: int, folder: Path, watch: Watch
) -> dict[str, Any]:
    row: dict[str, Any] = {"inputs": inputs, "refused": 0, "loaded": 0, "silently wrong": 0, "crashes": 0}
    row |= {"over 1 GB": 0, "touched": 0, "slowest ms": 0.0, "problems": []}
    for _ in range(inputs):
        first, second = rng.permutation(len(made))[:2]
        original = made[first]
        files = change(rng, original, made[second])
        files = seal(files) if sealed and META in files and TENSORS in files else files
        _put(folder, files)
        watch.seen.clear()
        memory, began = _peak(), time.perf_counter()
        outcome = _load(folder, watch)
        row["slowest ms"] = round(max(row["slowest ms"], 1e3 * (time.perf_counter() - began)), 1)
        wrong = not sealed and outcome == "loaded" and files != original
        faults = {
            "silently wrong": wrong,
            "crashes": outcome not in ("loaded", "refused"),
            "over 1 GB": _peak() - memory > GROWTH,
            "touched": bool(watch.seen),
        }
        row["loaded"] += outcome == "loaded"
        row["refused"] += outcome == "refused"
        for name, happened in faults.items():
            row[name] += happened
            if happened and len(row["problems"]) < 5:
                row["problems"].append(f"{name}: {outcome} {watch.seen[:3]}")
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    for row in run(args.n, args.seed):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
