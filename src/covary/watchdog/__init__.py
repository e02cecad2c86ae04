"""Watches over training, a line of metrics at a time: says once what likely keeps it from learning, and what to do.

A rule is a function from what is `Known` to a `Finding` or None, and a row of a table: `AT_START` for what the settings
tell already, `AT_LINES` for what shows while training goes on, with the number of lines in a row for which it must
hold. Healthy runs are to hear nothing, so the thresholds lie far from where healthy runs do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from covary.agent import Agent
from covary.settings import Settings
from covary.watchdog import learning, worlds
from covary.watchdog.known import Episode, Finding, Known, Seen

Rule = Callable[[Known], Finding | None]

AT_START: tuple[tuple[str, Rule], ...] = (
    ("entropy without effect", learning.idle_entropy),
    ("nothing learned", learning.idle_learner),
    ("too many threads", learning.many_threads),
)
AT_LINES: tuple[tuple[str, Rule, int], ...] = (  # and the lines in a row for which it must hold
    ("policy saturated", learning.saturated, 3),
    ("actions clipped", learning.clipped, 3),
    ("actions not those scored", learning.unscored, 3),
    ("policy collapsed", learning.collapsed, 3),
    ("one choice only", learning.one_choice, 5),
    ("entropy too faint", learning.faint_entropy, 5),
    ("critic worse than the mean", learning.worse_than_mean, 20),
    ("kl beyond its bound", learning.far_kl, 3),
    ("observations unscaled", worlds.unscaled_obs, 1),
    ("an observation stands still", worlds.still_obs, 1),
    ("observations too coarse", worlds.coarse_obs, 1),
    ("observations cut", worlds.cut_obs, 1),
    ("rewards unscaled", worlds.unscaled_reward, 5),
    ("every return the same", worlds.same_return, 3),
    ("time limit told as a death", worlds.limit_told_as_death, 3),
    ("environment takes the time", worlds.slow_environment, 3),
)


class Watchdog:
    """Says each warning once.

    Args:
        threads: of torch, while the run goes on.
        say: prints a text.
        note: keeps a record of it: step, rule, given, cause, fix.
    """

    def __init__(
        self,
        agent: Agent,
        settings: Settings,
        threads: int,
        say: Callable[[str], None],
        note: Callable[[dict[str, Any]], None],
    ) -> None:
        self.known = Known(agent, settings, threads, {"step": agent.steps}, fresh=agent.steps == 0)
        self.say, self.note = say, note
        self.lines = {name: 0 for name, _, _ in AT_LINES}  # in a row, for which each rule has held
        self.said: set[str] = set()

    def start(self) -> None:
        """Says what the settings tell."""
        for name, rule in AT_START:
            if (finding := rule(self.known)) is not None:
                self._tell(name, finding)

    def look(self, record: dict[str, Any], seen: Seen) -> None:
        """Says what shows by now. record: a line of metrics, with `step`; seen: what went by since the line before."""
        self.known.take(record, seen)
        for name, rule, lines in AT_LINES:
            if name in self.said:
                continue
            finding = rule(self.known)
            self.lines[name] = self.lines[name] + 1 if finding else 0
            if finding and self.lines[name] >= lines:
                self._tell(name, finding)

    def _tell(self, name: str, finding: Finding) -> None:
        self.said.add(name)
        step = int(self.known.record["step"])
        self.say(
            f"warning: {name} (step {step:,})\n  given: {finding.given}\n  cause: {finding.cause}\n"
            f"  fix:   {finding.fix}"
        )
        self.note({"step": step, "rule": name, **finding._asdict()})


__all__ = ["AT_LINES", "AT_START", "Episode", "Finding", "Known", "Seen", "Watchdog"]
