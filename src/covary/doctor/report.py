"""The report: for people with rich, for programs as JSON."""

from __future__ import annotations

import json
import linecache
import os
from typing import Any

from covary.doctor.case import Case
from covary.doctor.findings import Finding

COLOUR = {"error": "red", "warning": "yellow", "note": "cyan"}


def watched(case: Case, seconds: float) -> dict[str, Any]:
    """What the findings rest on."""
    return {
        "updates": case.counts["updates"],
        "backwards": case.counts["backwards"],
        "optimizers": len(case.optimizers),
        "parameters": len({key for optimizer in case.optimizers for key in optimizer.params}),
        "seconds": round(seconds, 2),
    }


def as_json(script: str, findings: list[Finding], case: Case | None, seconds: float, error: str | None = None) -> str:
    """The one object that `--json` prints."""
    what: dict[str, Any] = {
        "script": script,
        "healthy": error is None and all(finding.severity == "note" for finding in findings),
        "findings": [finding.as_json() for finding in findings],
        "watched": watched(case, seconds)
        if case is not None
        else {"updates": 0, "backwards": 0, "optimizers": 0, "parameters": 0, "seconds": 0.0},
    }
    if case is not None and case.unseen:
        what["unseen"] = case.unseen
    if error is not None:
        what["error"] = error
    return json.dumps(_plain(what), allow_nan=False)


def _plain(value: Any) -> Any:
    """What JSON can hold: no NaN, no infinity, no numpy."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(one) for one in value]
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return int(value)
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    return number if number == number and abs(number) != float("inf") else str(number)


def show(findings: list[Finding], case: Case, seconds: float, console: Any = None) -> None:
    """Prints the report, the root cause first."""
    from rich.console import Console
    from rich.markup import escape
    from rich.rule import Rule

    console = console or Console()
    seen = watched(case, seconds)
    console.print()
    console.print(Rule("covary doctor"))
    for i, finding in enumerate(findings, 1):
        colour = COLOUR[finding.severity]
        sure = "" if finding.certain else " (a candidate: the trail was lost on the way)"
        console.print(
            f"[bold {colour}]{i}. {finding.severity}: {escape(finding.title)}[/]{sure}  [dim]{finding.code}[/]"
        )
        if finding.site is not None:
            console.print(
                f"   [bold]{escape(_short(finding.site.file))}:{finding.site.line}[/] in {finding.site.function}"
            )
            for line in range(max(1, finding.site.line - 2), finding.site.line + 3):
                text = linecache.getline(finding.site.file, line).rstrip("\n")
                if text or line == finding.site.line:
                    mark, style = (">", f"bold {colour}") if line == finding.site.line else (" ", "dim")
                    console.print(f"   [{style}]{mark}{line:5d} | {escape(text)}[/]", soft_wrap=True)
        if finding.parameters:
            shown = ", ".join(finding.parameters[:6]) + (
                f" and {n} more" if (n := len(finding.parameters) - 6) > 0 else ""
            )
            console.print(f"   parameters: {escape(shown)}")
        if finding.evidence:
            facts = "; ".join(f"{key} {_fact(value)}" for key, value in finding.evidence.items())
            console.print(f"   observed:   {escape(facts)}")
        console.print(f"   why:        {escape(finding.explanation)}")
        console.print(f"   fix:        [green]{escape(finding.fix)}[/]")
        console.print()
    if not findings and case.counts["updates"]:
        console.print("[bold green]Healthy:[/] nothing that keeps it from learning was seen.")
    console.print(
        f"[dim]watched {_count(seen['updates'], 'update')}, {_count(seen['backwards'], 'backward call')}, "
        f"{_count(seen['optimizers'], 'optimizer')}, {_count(seen['parameters'], 'parameter')}, "
        f"{seen['seconds']:.1f} s[/]"
    )
    for what in case.unseen:
        console.print(f"[dim]not seen: {escape(what)}[/]")


def _short(path: str) -> str:
    try:
        short = os.path.relpath(path)
    except (OSError, ValueError):  # the folder that was current is gone, or another drive
        return path
    return path if short.startswith("..") else short


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}" + ("" if number == 1 else "s")


def _fact(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(_fact(one) for one in value[:6])
    return str(value)
