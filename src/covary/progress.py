"""What a person sees while a run goes on: one live line in a terminal, plain lines elsewhere."""

from __future__ import annotations

import random
import time
from typing import Any

_before = random.getstate()

from rich.console import Console  # noqa: E402

random.setstate(_before)  # rich draws from the process's own random numbers, which are an environment's perhaps


class Progress:
    """Reports at most every second (live) or every five (plain); the first and last always."""

    def __init__(self, total: int, start: int = 0, *, quiet: bool = False, live: bool = True) -> None:
        self.total, self.start, self.quiet = total, start, quiet
        self.console = Console(highlight=False)
        self.began = self.last = time.perf_counter()
        self.status = None
        self.shown = False
        if self.console.is_terminal and live and not quiet:
            self.status = self.console.status("starting")
            self.status.start()

    def say(self, text: str) -> None:
        """A line that stays."""
        if not self.quiet:
            self.console.print(text, markup=False, soft_wrap=True)

    def update(self, step: int, record: dict[str, Any]) -> float:
        """Shows where the run is. Returns steps per second since the start."""
        now = time.perf_counter()
        rate = (step - self.start) / max(now - self.began, 1e-9)
        every = 1.0 if self.status else 5.0
        if not self.quiet and (now - self.last >= every or not self.shown or step >= self.total):
            self.last, self.shown = now, True
            left = max(self.total - step, 0) / max(rate, 1e-9)
            value = record.get("return")
            text = f"{step:>10,} / {self.total:,} steps   {rate:>7,.0f} steps/s   "
            text += f"return {value:>10.2f}" if isinstance(value, float) else "return          –"
            if "eval_return" in record:
                text += f"   evaluated {record['eval_return']:.2f}"
            text += f"   {int(left // 60)}:{int(left % 60):02d} left"
            if self.status:
                self.status.update(text)
            if not self.status or step >= self.total:
                self.say(text)
        return rate

    def close(self) -> None:
        if self.status:
            self.status.stop()
