"""Pictures of runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from covary.errors import UsageError
from covary.runs import Run

INK = ("#2a5d9f", "#c8553d", "#3a7d44", "#8d5a97", "#b8860b", "#4a4a4a")


def curve(paths: Sequence[str | Path], out: str | Path) -> Path:
    """Draws return over steps: a point a report, a line through their running median, one colour a run.

    Raises:
        UsageError: a folder that is no run, or an `out` that cannot be written.
    """
    figure = _figure(8, 4.5)
    axes = figure.add_subplot()
    for path, ink in zip(paths, INK * len(paths), strict=False):
        run = Run.open(Path(path))
        points = [(line["step"], line["return"]) for line in run.lines() if isinstance(line.get("return"), int | float)]
        if not points:
            continue
        steps, returns = np.array(points).T
        axes.plot(steps, returns, ".", color=ink, alpha=0.25, markersize=4, markeredgewidth=0)
        axes.plot(steps, _smooth(returns), color=ink, linewidth=1.8, label=_label(run))
        tried = [(line["step"], line["eval_return"]) for line in run.lines() if "eval_return" in line]
        if tried:
            axes.plot(*np.array(tried).T, "o", color=ink, markersize=5, markerfacecolor="white")
    axes.set_xlabel("environment steps")
    axes.set_ylabel("return of training episodes")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.2)
    axes.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:g}k" if x else "0")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
    else:
        axes.text(0.5, 0.5, "no episode has ended yet", ha="center", transform=axes.transAxes)
    return _write(figure, out)


def _label(run: Run) -> str:
    c = run.config
    env = c["env"].get("id") or c["env"].get("class") or c["env"].get("object")
    return f"{env}, {c['algo']}, seed {c.get('seed')} ({run.path.name})"


def _smooth(y: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Running median over a twentieth of the points."""
    half = max(len(y) // 40, 1)
    return np.array([np.median(y[max(i - half, 0) : i + half + 1]) for i in range(len(y))])


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)  # no window, no global state
    return figure


def _write(figure: Any, out: str | Path) -> Path:
    out = Path(out)
    try:
        figure.savefig(out)
    except (OSError, ValueError) as error:
        raise UsageError("The picture must be writable.", given=f"{out}: {error}", fix="-o curves.png") from error
    return out
