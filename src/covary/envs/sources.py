"""What the user names or hands in: an id, `module:Class`, `file.py:Class`, an object or a callable; and what a run
records of it."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium.vector import VectorEnv

from covary.envs.bipedal import with_episodes_of_their_own
from covary.envs.faults import line_of, raised
from covary.envs.tensors import TensorEnv
from covary.errors import UsageError

Recipe = dict[str, Any]


class Source:
    """An environment that can be built again: how to make one, and how a run records it.

    Attributes:
        make: makes one environment.
        recipe: what `config.json` keeps: {"id"}, {"envpool"}, {"file" | "module", "class", "path", "sha256"}, or
            {"object"}.
        name: short, for folders and messages.
        vector: a vector environment that was handed in as it is, or tensors behind the face of one; else None.
        pool: makes a vector environment of this many from a seed, where that is the only way; else None.
    """

    def __init__(
        self,
        name: str,
        recipe: Recipe,
        make: Callable[[], gymnasium.Env[Any, Any]] | None,
        *,
        vector: VectorEnv[Any, Any, Any] | None = None,
        single: bool = False,
        pool: Callable[[int, int], VectorEnv[Any, Any, Any]] | None = None,
    ) -> None:
        self.name, self.recipe, self.vector, self.single, self.pool = name, recipe, vector, single, pool
        self._make = make

    @property
    def on_device(self) -> Callable[[int, str], TensorEnv] | None:
        """Makes this many of them as tensors on a device; None unless the environment's class offers that."""
        maker: Any = self._make
        if "id" in self.recipe:
            spec = gymnasium.spec(self.recipe["id"].rpartition(":")[2])  # its module is imported by now
            if spec.kwargs or spec.max_episode_steps or spec.additional_wrappers or spec.entry_point is None:
                return None  # the class alone is another environment
            entry = spec.entry_point
            maker = gymnasium.envs.registration.load_env_creator(entry) if isinstance(entry, str) else entry
        return getattr(maker, "on_device", None)

    def make(self) -> gymnasium.Env[Any, Any]:
        if self._make is None:
            raise UsageError(
                "A vector environment that was handed in cannot be built a second time.",
                fix="hand in an id, a class or a callable that makes one environment",
            )
        try:
            env = self._make()
        except (UsageError, KeyboardInterrupt):
            raise
        except BaseException as error:  # SystemExit as well
            raise UsageError(
                f"Calling {self.name} without arguments must make an environment.",
                given=f"{type(error).__name__}: {error}",
                cause=line_of(error),
                fix=f"a callable that needs none, as lambda: {self.name}(...)" if isinstance(error, TypeError) else "",
            ) from error
        if not isinstance(env, gymnasium.Env):
            raise UsageError(
                "An environment is a gymnasium.Env.",
                given=f"{type(env).__module__}.{type(env).__qualname__} from {self.name}",
                cause="a class of the old `gym` package, or one that lacks its base class",
                fix="class MyEnv(gymnasium.Env)",
            )
        return env


def resolve(env: Any) -> Source:
    """The source of whatever the user named or handed in.

    Raises:
        UsageError: an unknown id (with the nearest), a file, module or class that does not exist.
    """
    if isinstance(env, Source):
        return env
    if isinstance(env, VectorEnv):
        return Source(type(env).__name__, {"object": type(env).__name__}, None, vector=env)
    if isinstance(env, TensorEnv) and not isinstance(env, type):
        from covary.envs.hosted import host

        return Source(type(env).__name__, {"object": type(env).__name__}, None, vector=host(env))
    if isinstance(env, gymnasium.Env):
        spec = env.spec
        name = spec.id if spec else type(env.unwrapped).__name__
        return Source(name.split("/")[-1], {"object": name}, lambda: env, single=True)
    if callable(env):
        name = getattr(env, "__name__", type(env).__name__).strip("<>")
        return Source(name, {"object": name}, env)
    if not isinstance(env, str):
        raise UsageError(
            "An environment is a Gymnasium id, module:Class, file.py:Class, a gymnasium.Env or a callable.",
            given=repr(env),
        )
    if env.startswith("envpool:"):
        return _from_envpool(env.removeprefix("envpool:"))
    if env in gymnasium.registry:  # ids may hold a colon of their own, with a module to import
        return _from_id(env)
    place, colon, attribute = env.rpartition(":")
    if colon and attribute.isidentifier():
        return _from_code(place, attribute)
    return _from_id(env)


def _from_id(env_id: str) -> Source:
    try:
        module, colon, bare = env_id.rpartition(":")
        if colon:
            importlib.import_module(module)
        gymnasium.spec(bare)
    except ModuleNotFoundError as error:
        raise UsageError(f"The module of {env_id!r} cannot be imported.", given=str(error)) from error
    except (gymnasium.error.Error, ValueError) as error:
        raise _unknown(env_id, error) from error

    def make() -> gymnasium.Env[Any, Any]:
        try:
            return with_episodes_of_their_own(gymnasium.make(bare, disable_env_checker=True))
        except (gymnasium.error.DependencyNotInstalled, ModuleNotFoundError) as error:
            raise UsageError(
                f"{env_id} needs a package that is not installed.",
                given=str(error).strip().splitlines()[0],
                fix='pip install "covary[box2d]" or "covary[mujoco]"',
            ) from error

    recorded = bare if module == "covary.envs" else env_id
    return Source(bare.split("/")[-1], {"id": recorded}, make)


def _from_envpool(task: str) -> Source:
    """A task of EnvPool, which steps many environments in C++; it resets them itself and is seeded once."""
    try:
        import envpool
    except ImportError as error:
        raise UsageError(
            f"envpool:{task} needs a package that is not installed.",
            given=str(error),
            fix='pip install "covary[envpool]", or the same id without envpool:',
        ) from error
    known = envpool.list_all_envs()
    if task not in known:
        near = difflib.get_close_matches(task, known, n=1)
        raise UsageError(
            "EnvPool must know the task.", given=task, fix=f"did you mean envpool:{near[0]}?" if near else ""
        )

    def pool(n: int, seed: int) -> VectorEnv[Any, Any, Any]:
        made: VectorEnv[Any, Any, Any] = envpool.make_gymnasium(task, num_envs=n, seed=seed % 2**31)
        made.seeded = True  # type: ignore[attr-defined]
        return made

    return Source(task, {"envpool": task}, None, pool=pool)


def _unknown(env_id: str, error: Exception) -> UsageError:
    bare = env_id.rpartition(":")[2]
    near = difflib.get_close_matches(bare, list(gymnasium.registry), n=3, cutoff=0.5)
    if not near:
        wanted = bare.lower()
        near = [known for known in gymnasium.registry if wanted in known.lower()][:3]
    looks_like_file = bare.endswith(".py") or (os.sep in env_id and Path(env_id).exists())
    return UsageError(
        "The environment must be registered with Gymnasium, or be named as file.py:Class or module:Class.",
        given=repr(env_id),
        cause=str(error).splitlines()[0] if not looks_like_file else "a file without the name of its class",
        fix=f"did you mean {' or '.join(near)}?" if near else f"{env_id}:MyEnv" if looks_like_file else "",
    )


def _from_code(place: str, attribute: str) -> Source:
    """file.py:Class or module:Class, imported once, with the SHA-256 of its file for the record."""
    if place.endswith(".py") or os.sep in place:
        path = Path(place).expanduser().resolve()
        if not path.is_file():
            near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.py")], n=1)
            raise UsageError(
                "The file of an environment must exist.",
                given=place,
                fix=f"did you mean {near[0]}?" if near else f"looked in {path.parent}",
            )
        module = _import_file(path)
        kind = "file"
    else:
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
        try:
            module = importlib.import_module(place)
        except ModuleNotFoundError as error:
            raise UsageError(
                "The module of an environment must be importable from here.",
                given=f"{place}: {error}",
                fix=f"run from the folder that holds it, or name its file: {place.split('.')[-1]}.py:{attribute}",
            ) from error
        except Exception as error:
            raise raised(f"importing {place}", error) from error
        path = Path(getattr(module, "__file__", None) or place)
        if not path.is_file():
            raise UsageError("The module of an environment must have a file.", given=place)
        kind = "module"
    made = getattr(module, attribute, None)
    if made is None or not callable(made):
        classes = [n for n, v in vars(module).items() if isinstance(v, type) and issubclass(v, gymnasium.Env)]
        near = difflib.get_close_matches(attribute, classes, n=1) or classes[:3]
        raise UsageError(
            f"{path.name} must define {attribute}.",
            given=f"it defines {', '.join(classes) or 'no gymnasium.Env'}",
            fix=f"{place}:{near[0]}" if near else "",
        )
    recipe = {kind: place, "class": attribute, "path": str(path), "sha256": sha256(path)}
    if kind == "file":
        recipe["file"] = str(path)
    return Source(attribute, recipe, made)


def _import_file(path: Path) -> Any:
    name = "covary_env_" + hashlib.sha256(str(path).encode() + path.read_bytes()).hexdigest()[:12]
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # worker processes find the class by its module's name
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # what stands beside the file can be imported by it
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise raised(f"importing {path.name}", error) from error
    return module


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def rebuild(recipe: Recipe, run: Path, say: Callable[[str], None]) -> Source:
    """The environment that a run recorded. Code is run only from outside the run folder and only if it is, to the
    byte, the code that was recorded.

    Raises:
        UsageError: anything else, asking for --env.
    """
    ask = "name the environment yourself: --env"
    if isinstance(env_id := recipe.get("id"), str):
        if ":" in env_id:
            raise UsageError("A run folder may not name a module to import.", given=env_id, fix=ask)
        return _from_id(env_id)
    if isinstance(task := recipe.get("envpool"), str):
        return _from_envpool(task)
    path_text, wanted = recipe.get("path"), recipe.get("sha256")
    if not isinstance(path_text, str) or not isinstance(wanted, str) or not isinstance(recipe.get("class"), str):
        given = f"an object in Python, {recipe.get('object')}" if "object" in recipe else "nothing that can be built"
        raise UsageError("This run's environment was not recorded by name.", given=given, fix=ask)
    path = Path(path_text)
    if not path.is_file():
        raise UsageError("This run's environment is no longer where it was.", given=path, fix=ask)
    if path.resolve().is_relative_to(run.resolve()):
        raise UsageError("Code inside a run folder is not run.", given=path, fix=ask)
    if sha256(path) != wanted:
        raise UsageError(
            "This run's environment has changed since it was recorded.",
            given=f"{path}: its SHA-256 is no longer {wanted[:12]}…",
            fix=ask + f" {path}:{recipe['class']}",
        )
    # The very file that was checked, and not whatever its module's name would import by now.
    source = _from_code(str(path), recipe["class"])
    say(f"environment: {path}:{recipe['class']}, as it was recorded (SHA-256 {wanted[:12]}…)")
    return source
