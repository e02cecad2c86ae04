"""Pictures of runs and of what was learned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from covary.errors import UsageError
from covary.runs import Run

if TYPE_CHECKING:
    from covary.portrait import Axis, Portrait, View

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
    _as_curve(axes)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
    else:
        axes.text(0.5, 0.5, "no episode has ended yet", ha="center", transform=axes.transAxes)
    return _write(figure, out)


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
    figure = _figure(3.2 * len(obs), 3.6)
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
    return _write(figure, out)


# ------------------------------------------------------------------------------------------- one policy


SHOWN = 10.0  # nats below the peak: all but a 20,000th of a Gaussian's mass in two dimensions
HISTORY = {
    "covariance": "eigenvalues of the latent covariance",
    "at_bound": "share of actions at a bound",
    "entropy": "entropy (nats)",
}


def policy(portrait: Portrait, run: Run | None, out: str | Path) -> Path:
    """Draws a policy at some observations and, below, how its spread became what it is.

    Raises:
        UsageError: an `out` that cannot be written.
    """
    return _write(policy_figure(portrait, list(run.lines()) if run else []), out)


def policy_figure(portrait: Portrait, lines: Sequence[dict[str, Any]]) -> Any:
    """The same as a matplotlib Figure; lines: of metrics, of which numbers that are absent are not drawn."""
    history = _history(lines)
    views = portrait.views
    figure = _figure(max(3.3 * len(views) + 0.9, 7.0), 3.9 + 2.1 * bool(history))
    figure.suptitle(portrait.title, fontsize=11)
    upper, *lower = figure.subfigures(1 + bool(history), 1, height_ratios=[3.7, 2.0][: 1 + bool(history)], squeeze=False)[
        :, 0
    ]
    panels = upper.subplots(1, len(views), sharex=True, sharey=len(portrait.axes) != 1, squeeze=False)[0]
    for ax, view in zip(panels, views, strict=True):
        if not portrait.axes:
            _draw_choices(ax, view, portrait.first)
        elif len(portrait.axes) == 1:
            _draw_curve(ax, view, portrait.axes[0])
        else:
            image = _draw_plane(ax, view, portrait.axes)
        ax.set_title(view.title, fontsize=9)
    if len(portrait.axes) == 2:
        panels[0].set_ylabel(_axis_label(portrait.axes[1]))
        bar = upper.colorbar(image, ax=panels, pad=0.01, aspect=30)
        bar.set_label("log density below its peak", fontsize=9)
    elif portrait.axes:
        panels[0].set_ylabel("density")
    handles, labels = panels[0].get_legend_handles_labels()
    if handles:
        upper.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    if history:
        for ax, name in zip(lower[0].subplots(1, len(history), squeeze=False)[0], history, strict=True):
            _draw_history(ax, name, history[name])
    return figure


def _draw_plane(ax: Any, view: View, axes: Sequence[Axis]) -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    x, y = axes
    assert view.log_density is not None
    below = np.maximum(view.log_density - view.log_density.max(), -SHOWN)
    image = ax.imshow(
        below.T,
        origin="lower",
        extent=[*x.window, *y.window],
        aspect="auto",
        cmap=LinearSegmentedColormap.from_list("ink", SHADES),
        vmin=-SHOWN,
        vmax=0,
        interpolation="bilinear",
    )
    if view.samples is not None:
        ax.plot(*view.samples.T, ".", color=INK[1], markersize=4, markeredgewidth=0, alpha=0.8, label="sampled actions")
    _draw_rings(ax, view, axes)
    assert view.best is not None
    ax.plot(*view.best, "o", color="white", markeredgecolor=INK[5], markersize=6, label=BEST, clip_on=False, zorder=5)
    for axis, set_limits in ((x, ax.set_xlim), (y, ax.set_ylim)):
        set_limits(axis.window)
    _draw_bounds(ax, view, axes)
    ax.set_xlabel(_axis_label(x))
    return image


BEST = "deterministic action"
RINGS = ("1 standard deviation of the latent", "2 standard deviations")


def _draw_rings(ax: Any, view: View, axes: Sequence[Axis]) -> None:
    """The latent's ellipses; where there is no latent Gaussian, lines around as much of the mass."""
    styles = ("-", (0, (4, 2)))
    for ring, style, label in zip(view.rings, styles, RINGS, strict=False):
        ax.plot(*ring.T, color="#111111", linewidth=1.1, linestyle=style, label=label)
    if not view.rings:
        assert view.log_density is not None
        inside = np.sort(np.exp(view.log_density).reshape(-1))[::-1]
        mass = np.cumsum(inside) / inside.sum()
        shares = [1 - math.exp(-(r**2) / 2) for r in (1, 2)]
        for share, style in zip(shares, styles, strict=True):
            level = float(np.log(inside[min(np.searchsorted(mass, share), mass.size - 1)]))
            grids = (axes[0].grid, axes[1].grid)
            ax.contour(*grids, view.log_density.T, levels=[level], colors="#111111", linewidths=1.1, linestyles=[style])
            ax.plot([], [], color="#111111", linewidth=1.1, linestyle=style, label=f"{share:.0%} of its mass")


def _draw_curve(ax: Any, view: View, axis: Axis) -> None:
    assert view.log_density is not None
    assert view.best is not None
    density = np.exp(view.log_density)
    ax.fill_between(axis.grid, density, color=SHADES[1], linewidth=0)
    ax.plot(axis.grid, density, color=INK[0], linewidth=1.6)
    top = 1.08 * float(density.max())
    ax.set_ylim(-0.16 * top, top)
    ax.set_xlim(axis.window)
    ax.set_yticks([tick for tick in ax.get_yticks() if 0 <= tick <= top])
    ax.axhline(0, color=INK[5], linewidth=0.6)
    for ring, width, label in zip(view.rings, (4.0, 1.4), RINGS, strict=False):
        left, right = ring[:, 0]
        pieces = [(left, right)] if left <= right or axis.kind != "wrap" else [(axis.low, right), (left, axis.high)]
        for n, piece in enumerate(pieces):
            ax.plot(piece, [-0.055 * top] * 2, color="#111111", linewidth=width, label=label if n == 0 else None)
    ax.plot(view.best, [-0.055 * top], "o", color="white", markeredgecolor=INK[5], markersize=6, label=BEST, zorder=5)
    if view.samples is not None:
        height = np.full(len(view.samples), -0.12 * top)
        ax.plot(view.samples[:, 0], height, "|", color=INK[1], markersize=6, alpha=0.8, label="sampled actions")
    _draw_bounds(ax, view, [axis])
    ax.set_xlabel(_axis_label(axis))


def _draw_choices(ax: Any, view: View, first: Sequence[int]) -> None:
    probs = view.probs
    assert probs is not None
    ax.spines[["top", "right"]].set_visible(False)
    if len(probs) == 1:
        names = np.arange(len(probs[0])) + first[0]
        inks = [INK[0] if p == np.nanmax(probs) else "#9dbde0" for p in probs[0]]
        bars = ax.bar(names, probs[0], color=inks, width=0.7)
        if len(names) <= 8:
            ax.bar_label(bars, [f"{p:.2f}" for p in probs[0]], fontsize=8, padding=2)
            ax.set_xticks(names)
        ax.set_ylim(0, 1.08)
        ax.set_xlabel("action")
        ax.set_ylabel("probability")
        return
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("ink", SHADES)
    ax.imshow(probs, cmap=colours, vmin=0, vmax=1, aspect="auto")
    if probs.size <= 80:
        for (i, k), p in np.ndenumerate(probs):
            if np.isfinite(p):
                ink = "white" if p > 0.5 else INK[5]
                ax.text(k, i, f"{k + first[i]}\n{p:.2f}", ha="center", va="center", fontsize=7, color=ink)
    ax.set_xticks([])
    ax.set_yticks(range(len(probs)))
    ax.set_xlabel("choice and its probability")
    ax.set_ylabel("dimension of the action")


def _draw_bounds(ax: Any, view: View, axes: Sequence[Axis]) -> None:
    """A bound is a solid line, the seam of an angle a dotted one on both sides; no bound, no line."""
    assert view.masses is not None
    for axis, masses, sides in zip(axes, view.masses, (("left", "right"), ("bottom", "top")), strict=False):
        for bound, side, at, mass in zip((axis.low, axis.high), sides, axis.window, masses, strict=True):
            spine = ax.spines[side]
            if axis.kind == "wrap":
                spine.set(linestyle=(0, (1, 2)), linewidth=1.6, color=INK[0])
            elif not math.isclose(bound, at, rel_tol=1e-9, abs_tol=1e-9):
                spine.set_visible(False)
                if math.isfinite(bound):
                    line = ax.axvline if side in ("left", "right") else ax.axhline
                    line(bound, color=INK[5], linewidth=1.0)
            if mass >= 0.005:
                _say_mass(ax, side, bound, float(mass))
            _set_ticks(ax, axis, "x" if side in ("left", "right") else "y")
    if len(axes) == 1:
        ax.spines["top"].set_visible(False)
        ax.spines["bottom"].set_visible(False)


def _say_mass(ax: Any, side: str, bound: float, mass: float) -> None:
    upright = side in ("left", "right")
    ax.annotate(
        f"{mass:.0%} at the bound",
        (bound, 0.5) if upright else (0.5, bound),
        xycoords=("data", "axes fraction") if upright else ("axes fraction", "data"),
        xytext={"left": (4, 0), "right": (-4, 0), "bottom": (0, 4), "top": (0, -4)}[side],
        textcoords="offset points",
        ha={"left": "left", "right": "right"}.get(side, "center"),
        va={"bottom": "bottom", "top": "top"}.get(side, "center"),
        rotation=90 if upright else 0,
        fontsize=8,
        color=INK[1],
    )


def _set_ticks(ax: Any, axis: Axis, which: str) -> None:
    """Angles in radians have ticks in parts of pi, and so have bounds that are such."""
    parts = [x / (math.pi / 2) for x in (axis.low, axis.high)]
    if not all(math.isfinite(p) and abs(p - round(p)) < 1e-5 for p in parts) or parts == [0, 0]:
        return
    first, last = (round(p) for p in parts)
    step = 0.5 if last - first <= 2 else 1 if last - first <= 4 else 2
    ticks = np.arange(first, last + step / 2, step)
    getattr(ax, f"set_{which}ticks")(ticks * math.pi / 2, [_in_pi(t / 2) for t in ticks])


def _in_pi(turns: float) -> str:
    """turns: in units of pi, a multiple of a quarter."""
    if turns == int(turns):
        return {0: "0", 1: "π", -1: "−π"}.get(int(turns), f"{int(turns)}π".replace("-", "−"))
    over = 2 if turns * 2 == int(turns * 2) else 4
    top = int(turns * over)
    return f"{'−' if top < 0 else ''}{abs(top) if abs(top) != 1 else ''}π/{over}"


def _axis_label(axis: Axis) -> str:
    low, high = (_number(x) for x in (axis.low, axis.high))
    if axis.kind == "wrap":
        return f"action {axis.dim}, an angle: {low} is {high}"
    if math.isfinite(axis.high - axis.low):
        return f"action {axis.dim}, {low} to {high}"
    if math.isfinite(axis.low):
        return f"action {axis.dim}, {low} or above"
    return f"action {axis.dim}, {high} or below" if math.isfinite(axis.high) else f"action {axis.dim}, unbounded"


def _number(x: float) -> str:
    quarters = x / (math.pi / 4) if math.isfinite(x) else 0.5
    if x and abs(quarters - round(quarters)) < 1e-5:
        return _in_pi(round(quarters) / 4)
    return f"{x:.4g}".replace("-", "−")


def _history(lines: Sequence[dict[str, Any]]) -> dict[str, NDArray[Any]]:
    """What HISTORY names and the lines have: (L, 2) steps and values, or (L, 3) steps, smallest and largest."""
    wanted = {"covariance": ("latent_var_min", "latent_var_max"), "at_bound": ("at_bound",), "entropy": ("entropy",)}
    found = {}
    for name, fields in wanted.items():
        rows = [
            [line["step"], *(line[field] for field in fields)]
            for line in lines
            if all(isinstance(line.get(field), int | float) for field in fields)
        ]
        if rows:
            found[name] = np.array(rows, float)
    return found


def _draw_history(ax: Any, name: str, rows: NDArray[Any]) -> None:
    steps, values = rows[:, 0], rows[:, 1:]
    if name == "covariance":
        ax.set_yscale("log")
        ax.fill_between(steps, values[:, 0], values[:, 1], color=SHADES[1], linewidth=0)
        for column, label in zip(values.T, ("smallest", "largest"), strict=True):
            ax.plot(steps, column, color=INK[0], linewidth=1.6, marker="." if len(steps) < 3 else None)
            if not np.allclose(values[:, 0], values[:, 1], rtol=1e-3):
                ax.annotate(label, (steps[-1], column[-1]), xytext=(4, 0), textcoords="offset points", fontsize=8)
    else:
        ax.plot(steps, values[:, 0], ".", color=INK[0], alpha=0.25, markersize=4, markeredgewidth=0)
        ax.plot(steps, _smooth(values[:, 0]), color=INK[0], linewidth=1.6, marker="." if len(steps) < 3 else None)
    if name == "at_bound":
        ax.set_ylim(0, max(1.1 * float(values.max()), 0.05))
        ax.yaxis.set_major_formatter(lambda y, _: f"{100 * y:g} %")
    ax.set_title(HISTORY[name], fontsize=9)
    ax.set_xlabel("environment steps")
    _as_curve(ax)


def _as_curve(ax: Any) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(alpha=0.2)
    ax.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:g}k" if x else "0")


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
