"""Pictures of runs and of what was learned."""

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
    figure = blank(8, 4.5)
    axes = figure.add_subplot()
    for path, ink in zip(paths, INK * len(paths), strict=False):
        run = Run.open(Path(path))
        points = [(line["step"], line["return"]) for line in run.lines() if isinstance(line.get("return"), int | float)]
        if not points:
            continue
        steps, returns = np.array(points).T
        axes.plot(steps, returns, ".", color=ink, alpha=0.25, markersize=4, markeredgewidth=0)
        axes.plot(steps, smooth(returns), color=ink, linewidth=1.8, label=_label(run))
        tried = [(line["step"], line["eval_return"]) for line in run.lines() if "eval_return" in line]
        if tried:
            axes.plot(*np.array(tried).T, "o", color=ink, markersize=5, markerfacecolor="white")
    axes.set_xlabel("environment steps")
    axes.set_ylabel("return of training episodes")
    as_curve(axes)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
    else:
        axes.text(0.5, 0.5, "no episode has ended yet", ha="center", transform=axes.transAxes)
    return write(figure, out, fix="-o curves.png")


DEEPEST = 30.0  # nats below the peak that are still told from white
SHADES = ("#ffffff", "#cfe0f3", "#5b8fc7", "#173f73")


def density(
    policy: Any,
    obs: np.ndarray[Any, Any],
    out: str | Path,
    *,
    best: np.ndarray[Any, Any] | None = None,
    titles: Sequence[str] = (),
    names: tuple[str, str] = ("action 0", "action 1"),
) -> Path:
    """Draws the policy's log density over a box of two action dimensions, a panel an observation, with a line around
    95 % of its mass.

    Args:
        policy: a `covary.Policy` on two finite action dimensions.
        obs: (K, O) raw observations.
        best: (K, 2) actions to mark, where the best are known.
    """
    import torch
    from matplotlib.colors import LinearSegmentedColormap

    geometry = policy.head.geometry
    n = 240
    sides = [lo + (np.arange(n) + 0.5) / n * (hi - lo) for lo, hi in zip(geometry.low, geometry.high, strict=True)]
    grid = np.stack(np.meshgrid(*sides, indexing="xy"), -1).reshape(-1, 2).astype(np.float32)
    colours = LinearSegmentedColormap.from_list("ink", SHADES)
    figure = blank(3.2 * len(obs), 3.6)
    axes = figure.subplots(1, len(obs), sharey=True, squeeze=False)[0]
    box = [geometry.low[0], geometry.high[0], geometry.low[1], geometry.high[1]]
    for k, ax in enumerate(axes):
        with torch.no_grad():
            law = policy(torch.as_tensor(obs[k : k + 1], dtype=torch.float32))
            log_p = law.log_prob(torch.from_numpy(grid).unsqueeze(1)).reshape(n, n).numpy()
            median = law.median[0].numpy()
        below = np.maximum(log_p - log_p.max(), -DEEPEST)
        image = ax.imshow(below, origin="lower", extent=box, aspect="auto", cmap=colours, interpolation="bilinear")
        inside = np.sort(np.exp(log_p).reshape(-1))[::-1]
        mass = np.cumsum(inside) / inside.sum()
        ninety_five = float(np.log(inside[min(np.searchsorted(mass, 0.95), mass.size - 1)]))
        ax.contour(*sides, log_p, levels=[ninety_five], colors="white", linewidths=1.2)
        ax.plot(
            *median,
            "o",
            color="white",
            markeredgecolor="#173f73",
            markersize=5,
            label="the policy's median",
            linestyle="none",
        )
        if best is not None:
            ax.plot(
                *best[k], "x", color="#c8553d", markersize=9, markeredgewidth=2, label="best action", linestyle="none"
            )
        ax.set_xlim(box[:2])
        ax.set_ylim(box[2:])
        ax.set_xlabel(names[0])
        ax.set_title(titles[k] if titles else f"observation {k}", fontsize=10)
    axes[0].set_ylabel(names[1])
    bar = figure.colorbar(image, ax=axes, pad=0.01, aspect=30)
    bar.set_label("log density below its peak", fontsize=9)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return write(figure, out, fix='out="density.png"')


def as_curve(ax: Any) -> None:
    """Axes of something over environment steps."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(alpha=0.2)
    ax.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:g}k" if x else "0")


def _label(run: Run) -> str:
    c = run.config
    env = c["env"].get("id") or c["env"].get("class") or c["env"].get("object")
    return f"{env}, {c['algo']}, seed {c.get('seed')} ({run.path.name})"


def smooth(y: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Running median over a twentieth of the points."""
    half = max(len(y) // 40, 1)
    return np.array([np.median(y[max(i - half, 0) : i + half + 1]) for i in range(len(y))])


def blank(width: float, height: float) -> Any:
    """A matplotlib Figure of so many inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)  # no window, no global state
    return figure


def write(figure: Any, out: str | Path, *, fix: str) -> Path:
    """Raises UsageError where it cannot. fix: what the user can say instead."""
    out = Path(out)
    try:
        figure.savefig(out)
    except (OSError, ValueError) as error:
        raise UsageError("The picture must be writable.", given=f"{out}: {error}", fix=fix) from error
    return out
