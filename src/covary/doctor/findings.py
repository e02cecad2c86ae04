"""What the doctor says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from covary.doctor.sites import Site

Severity = Literal["error", "warning", "note"]
ORDER = {"error": 0, "warning": 1, "note": 2}


@dataclass
class Finding:
    """One cause, at one line of the user's code.

    severity: "error", it cannot learn as written; "warning", it probably does not do what was meant; "note".
    parameters: named as the user would. evidence: what was observed, in numbers. certain: False for a candidate.
    """

    code: str
    severity: Severity
    title: str
    site: Site | None
    explanation: str
    fix: str
    parameters: list[str] = field(default_factory=list)
    evidence: dict[str, Any] = field(default_factory=dict)
    certain: bool = True
    keys: frozenset[int] = frozenset()  # the parameters concerned, by key: for folding consequences into causes
    more_sites: list[Site] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        site = self.site
        return {
            "code": self.code,
            "severity": self.severity,
            "title": self.title,
            "file": site.file if site else None,
            "line": site.line if site else None,
            "function": site.function if site else None,
            "source": site.source if site else None,
            "parameters": self.parameters,
            "evidence": self.evidence,
            "explanation": self.explanation,
            "fix": self.fix,
            "certain": self.certain,
        }
