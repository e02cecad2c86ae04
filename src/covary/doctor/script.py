"""Runs someone's script as Python itself would, and stops it cleanly when it is time."""

from __future__ import annotations

import builtins
import importlib.machinery
import io
import os
import runpy
import signal
import sys
import time
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
            return compile(stream.read(), str(file.resolve()), "exec", dont_inherit=True)
    except SyntaxError as error:
        line = f"line {error.lineno}: " if error.lineno else ""
        raise CannotRun(f"{path} is not Python: {line}{error.msg}.") from None
    except (ValueError, UnicodeDecodeError, OSError) as error:
        raise CannotRun(f"{path} cannot be read as Python: {error}.") from None


def run_path(path: str, code: types.CodeType, argv: list[str]) -> None:
    """Executes the script as `__main__`, with its own arguments and its folder first on the path."""
    main = types.ModuleType("__main__")
    file = str(Path(path).resolve())
    loader = importlib.machinery.SourceFileLoader("__main__", file)
    main.__dict__.update(
        {"__file__": os.path.abspath(path), "__builtins__": builtins, "__cached__": None, "__loader__": loader}
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
            "__builtins__": builtins,
            "__spec__": spec,
            "__loader__": spec.loader,
            "__package__": spec.parent,
            "__cached__": spec.cached,
        }
    )
    sys.argv[0] = spec.origin
    sys.modules["__main__"] = main
    exec(code, main.__dict__)


class Limits:
    """When a run is to end: after so many updates, or so many seconds.

    A script's `finally` blocks may take their time, and may train: `Stop` is raised again only where the script has
    plainly swallowed it, by MORE further updates.
    """

    MORE = 200

    def __init__(self, updates: int | None = None, seconds: float | None = None) -> None:
        self.updates, self.seconds = updates, seconds
        self.began, self.count, self._again = time.perf_counter(), 0, 0

    def on_step(self, count: int) -> None:
        """Told of each update; a script that uses the alarm clock itself is stopped from here."""
        self.count = count
        late = self.seconds is not None and time.perf_counter() - self.began >= self.seconds
        if (late or (self.updates is not None and count >= self.updates)) and count >= self._again:
            self.stop()

    def stop(self) -> None:
        self._again = self.count + self.MORE
        raise Stop


def stop_after(limits: Limits) -> None:
    """Raises `Stop` in the script when its seconds are over, whatever it does then."""
    seconds = limits.seconds
    if seconds is None:
        return
    if hasattr(signal, "SIGALRM"):

        def ring(number: int, frame: Any) -> None:
            if not limits._again:
                limits.stop()

        signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    else:
        import _thread
        import threading

        timer = threading.Timer(seconds, _thread.interrupt_main)
        timer.daemon = True
        timer.start()


def do_not_stop() -> None:
    if hasattr(signal, "SIGALRM"):
        signal.setitimer(signal.ITIMER_REAL, 0)
