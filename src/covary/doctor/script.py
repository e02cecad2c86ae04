"""Runs someone's script as Python itself would, and stops it cleanly when it is time."""

from __future__ import annotations

import io
import os
import runpy
import signal
import sys
import types
from pathlib import Path
from typing import Any


class Stop(BaseException):
    """Ends the script where it stands; its `finally` blocks and exit handlers still run."""


class CannotRun(Exception):
    """The script cannot be started: it is not there, or is no Python."""


def read(path: str) -> types.CodeType:
    """Compiles a script, with one clear message where that fails."""
    file = Path(path)
    if file.is_dir():
        raise CannotRun(f"{path} is a folder; give the script that trains, such as {path.rstrip('/')}/train.py.")
    if not file.exists():
        near = [other.name for other in file.parent.glob("*.py")] if file.parent.is_dir() else []
        import difflib

        close = difflib.get_close_matches(file.name, near, n=1)
        raise CannotRun(f"There is no file {path}." + (f" Did you mean {file.parent / close[0]}?" if close else ""))
    try:
        with io.open_code(str(file.resolve())) as stream:
            return compile(stream.read(), str(file.resolve()), "exec")
    except SyntaxError as error:
        line = f"line {error.lineno}: " if error.lineno else ""
        raise CannotRun(f"{path} is not Python: {line}{error.msg}.") from None
    except (ValueError, UnicodeDecodeError, OSError) as error:
        raise CannotRun(f"{path} cannot be read as Python: {error}.") from None


def run_path(path: str, code: types.CodeType, argv: list[str]) -> None:
    """Executes the script as `__main__`, with its own arguments and its folder first on the path."""
    main = types.ModuleType("__main__")
    file = str(Path(path).resolve())
    main.__dict__.update(
        {"__file__": os.path.abspath(path), "__builtins__": __builtins__, "__cached__": None, "__spec__": None}
    )
    sys.argv = [path, *argv]
    sys.path[0:1] = [os.path.dirname(file)]
    sys.modules["__main__"] = main
    exec(code, main.__dict__)


def run_module(name: str, argv: list[str]) -> None:
    """The same for `-m package.module`."""
    sys.argv = [name, *argv]
    sys.path[0:1] = [os.getcwd()]
    try:
        details: Any = runpy._get_module_details(name)  # type: ignore[attr-defined]
    except Exception as error:
        raise CannotRun(f"There is no module {name} to run: {error}.") from None
    name, spec, code = details
    main = types.ModuleType("__main__")
    main.__dict__.update(
        {
            "__file__": spec.origin,
            "__builtins__": __builtins__,
            "__spec__": spec,
            "__loader__": spec.loader,
            "__package__": spec.parent,
            "__cached__": spec.cached,
        }
    )
    sys.argv[0] = spec.origin
    sys.modules["__main__"] = main
    exec(code, main.__dict__)


def stop_after(seconds: float) -> None:
    """Raises `Stop` in the script after so long, and again should the script swallow it."""
    if hasattr(signal, "SIGALRM"):

        def ring(number: int, frame: Any) -> None:
            raise Stop

        signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001), 0.5)
    else:
        import _thread
        import threading

        timer = threading.Timer(seconds, _thread.interrupt_main)
        timer.daemon = True
        timer.start()


def do_not_stop() -> None:
    if hasattr(signal, "SIGALRM"):
        signal.setitimer(signal.ITIMER_REAL, 0)
