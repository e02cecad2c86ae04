"""The stopwatch that every system carries inside its environments."""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium

from yardstick.workloads import Workload


class Note(NamedTuple):
    """What the clocks showed when a step arrived at an environment."""

    cpu: float  # of the environment's process
    wall: float
    date: float  # seconds since 1970, to compare with the moment another process was started
    pid: int


class Stopwatch:
    """Makes environments, each of which notes the time at the workload's three marks.

    The notes travel through files, since the environments may live in processes of their own. Those of the environment
    that arrived first count; one that was made to look at its spaces, or to be tried for a few steps, never arrives.
    """

    def __init__(self, w: Workload, folder: str) -> None:
        self.w, self.folder = w, folder
        self.stopped = False  # said in the process of the environment alone

    def make(self) -> gymnasium.Env[Any, Any]:
        return Watched(self.w.make(), self)

    def keep(self, notes: list[Note]) -> None:
        self.stopped = True
        handle, path = tempfile.mkstemp(".part", dir=self.folder)
        with os.fdopen(handle, "w") as file:
            json.dump(notes, file)
        os.rename(path, path + ".json")

    def read(self) -> tuple[Note, Note, Note]:
        """The first update done, the start, the stop."""
        kept = [json.loads(path.read_text()) for path in Path(self.folder).glob("*.json")]
        if not kept:
            raise RuntimeError(f"no environment saw step {self.w.marks[-1]}: training ended before the stopwatch did")
        first, start, stop = min(([Note(*note) for note in notes] for notes in kept), key=lambda notes: notes[-1].wall)
        return first, start, stop


class Watched(gymnasium.Wrapper[Any, Any, Any, Any]):
    def __init__(self, env: gymnasium.Env[Any, Any], watch: Stopwatch) -> None:
        super().__init__(env)
        self.watch, self.count, self.notes = watch, 0, []
        self.next = watch.w.marks[0]

    def step(self, action: Any) -> Any:
        if self.count == self.next:
            self._note()
        self.count += 1
        return self.env.step(action)

    def _note(self) -> None:
        marks = self.watch.w.marks
        note = Note(time.process_time(), time.perf_counter(), time.time(), os.getpid())
        while len(self.notes) < len(marks) and marks[len(self.notes)] == self.count:  # two marks may be one
            self.notes.append(note)
        self.next = marks[len(self.notes)] if len(self.notes) < len(marks) else -1
        if self.next < 0:
            self.watch.keep(self.notes)
