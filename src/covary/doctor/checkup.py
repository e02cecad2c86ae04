"""A checkup in code: around one training step, or in a test suite."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

from torch import nn

from covary.doctor import report, rules
from covary.doctor.case import Case
from covary.doctor.findings import Finding
from covary.doctor.watching.watch import Watch


class Checkup:
    """Watches PyTorch from `start` to `stop`, and then knows what is wrong. Use it through `watch`."""

    def __init__(
        self,
        named: dict[str, Any] | None = None,
        on_step: Callable[[int], None] | None = None,
        announce: bool = False,
    ) -> None:
        self._watch = Watch(on_step=on_step)
        self.case: Case = self._watch.case
        self._watch.mode.listeners.update(rules.listeners(self.case))
        self._watch.glances.listeners.update(rules.listeners(self.case, "AFTERWARDS"))
        self._named = named or {}
        self._found: list[Finding] | None = None
        self._running = False
        self._seconds = 0.0
        if announce:
            self._watch.on_close = self._announce

    @property
    def troubles(self) -> list[str]:
        """What went wrong in the watching itself; empty unless there is a bug in the doctor."""
        return self._watch.mode.troubles

    def start(self) -> Checkup:
        for name, module in self._named.items():
            for path, parameter in module.named_parameters() if isinstance(module, nn.Module) else ():
                key = self.case.trail.key(parameter)
                self.case.names[key] = f"{name}.{path}"
                self.case.shapes[key] = tuple(parameter.shape)
        self._watch.start()
        self._found, self._running = None, True
        return self

    def stop(self) -> None:
        self._seconds = time.perf_counter() - self.case.started
        self._watch.stop()
        self._found, self._running = None, False

    def __enter__(self) -> Checkup:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.case.raised = error
        self.stop()

    @property
    def findings(self) -> list[Finding]:
        """What was found, the root cause first; while the watching goes on, what was found so far."""
        if self._found is None or self._running:
            self.case.refresh()
            self._found = rules.examine(self.case, self.troubles)
        return self._found

    @property
    def healthy(self) -> bool:
        """No error and no warning."""
        return all(finding.severity == "note" for finding in self.findings)

    def report(self) -> None:
        """Prints the report."""
        report.show(self.findings, self.case, self._seconds)

    def _announce(self) -> None:
        """When the window closes, what is certain already, on stderr: a script may run for ever."""
        for finding in rules.examine(self.case, self.troubles):
            if finding.severity == "error" and finding.certain and finding.site is not None:
                what = f"{finding.code} at {finding.site}: {finding.site.source}"
                told = f"covary doctor: {what}  (the report comes at the end, or on Ctrl-C)"
                print(told, file=sys.stderr, flush=True)
                break


def watch(**modules: nn.Module) -> Checkup:
    """Watches what happens inside the `with`; `checkup.report()` afterwards prints what was found.

    modules: networks by the name that the report shall use; others are named after the variables that hold them.

        with covary.doctor.watch(actor=actor, critic=critic) as checkup:
            agent.learn(batch)
        checkup.report()
    """
    return Checkup(modules)


def assert_learns(
    step: Callable[[], Any], modules: nn.Module | Iterable[nn.Module] | dict[str, nn.Module], steps: int = 3
) -> None:
    """Runs a training step a few times and raises an AssertionError, which reads like the report, if a fault is found
    or a module's parameters were not moved.

    step: does one update, without arguments. modules: what must learn from it; a dictionary names them.
    Raises TypeError where one of them is no module, ValueError where one has no parameters, or for steps below 1.
    """
    named: dict[str, nn.Module]
    if isinstance(modules, nn.Module):
        named = {"module": modules}
    elif isinstance(modules, dict):
        named = modules
    else:
        named = {f"module{i}": module for i, module in enumerate(modules)}
    if steps < 1:
        raise ValueError(f"assert_learns needs at least 1 step to see anything move, not {steps}.")
    for name, module in named.items():
        if not isinstance(module, nn.Module):
            raise TypeError(
                f"assert_learns takes modules; {name} is a {type(module).__name__}. Give the network itself."
            )
        if not any(True for _ in module.parameters()):
            raise ValueError(f"{name} has no parameters, so nothing in it can learn.")
    before = {name: [p.detach().clone() for p in module.parameters()] for name, module in named.items()}
    with watch(**named) as checkup:
        for _ in range(steps):
            step()
    still = [
        name
        for name, module in named.items()
        if all(bool((old == new).all()) for old, new in zip(before[name], module.parameters(), strict=True))
    ]
    serious = [finding for finding in checkup.findings if finding.severity != "note"]
    if not serious and not still:
        return
    import io

    from rich.console import Console

    text = io.StringIO()
    if still:
        text.write(f"{', '.join(still)} did not change in {steps} steps.\n")
    report.show(checkup.findings, checkup.case, checkup._seconds, Console(file=text, width=110, no_color=True))
    raise AssertionError(text.getvalue())
