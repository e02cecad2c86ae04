"""The picture of one policy: `covary.portrait` computes what is on it. Knows no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from covary.plots import INK, SHADES, as_curve, blank, smooth, write
from covary.runs import Run

if TYPE_CHECKING:
    from covary.portrait import Axis, Portrait, View

LIGHT = ("#ffffff", "#d7e6f5", "#8fb5dc", "#4f83bd")  # what is drawn on top stays readable
TOLD = 0.005  # probability at a bound, of which nothing is said below
LEVELS = (0.01, *np.arange(1, 21) / 20)  # of the density at its peak
HISTORY = {
    "covariance": "eigenvalues of the latent covariance",
    "at_bound": "share of actions at a bound",
    "entropy": "entropy (nats)",
}


def draw(portrait: Portrait, run: Run | None, out: str | Path) -> Path:
    """Draws a policy at some observations and, below, how its spread became what it is.

    Raises:
        UsageError: an `out` that cannot be written.
    """
    return write(figure_of(portrait, list(run.lines()) if run else []), out, fix="-o policy.png")


def figure_of(portrait: Portrait, lines: Sequence[dict[str, Any]]) -> Any:
    """The same as a matplotlib Figure; lines: of metrics, of which numbers that are absent are not drawn."""
    history = _history(lines)
    views = portrait.views
    figure = blank(max(3.3 * len(views) + 0.9, 7.0), 3.9 + 2.1 * bool(history))
    figure.suptitle(portrait.title, fontsize=11)
    upper, *lower = figure.subfigures(
        1 + bool(history), 1, height_ratios=[3.7, 2.0][: 1 + bool(history)], squeeze=False
    )[:, 0]
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
        bar = upper.colorbar(
            image, ax=panels, pad=0.01, aspect=30, ticks=[0.01, 0.25, 0.5, 0.75, 1], spacing="proportional"
        )
        bar.set_label("density, as a share of its peak", fontsize=9)
    else:
        words = "density" if portrait.axes else "dimension of the action" if len(portrait.first) > 1 else "probability"
        panels[0].set_ylabel(words)
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
    share = np.exp(_below_peak(view))
    colours = LinearSegmentedColormap.from_list("ink", LIGHT)
    image = ax.contourf(x.grid, y.grid, share.T, levels=LEVELS, cmap=colours, antialiased=True)
    ax.set_facecolor(LIGHT[0])
    if view.samples is not None:
        dots = {"markersize": 7, "markeredgewidth": 0.4, "markeredgecolor": "white", "alpha": 0.9}
        ax.plot(*view.samples.T, ".", color=INK[1], label="sampled actions", clip_on=False, **dots)
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
        below = _below_peak(view)
        order = np.argsort(-below, axis=None)
        mass = np.cumsum((np.exp(below) * np.outer(axes[0].cells, axes[1].cells)).reshape(-1)[order])
        mass *= _between_bounds(view, axes) / mass[-1]
        shares = [1 - math.exp(-(r**2) / 2) for r in (1, 2)]
        for share, style in zip(shares, styles, strict=True):
            level = below.reshape(-1)[order[min(int(np.searchsorted(mass, share)), mass.size - 1)]]
            if mass[-1] <= share or not below.min() < level < 0:  # as much lies at bounds, or all of it in one cell
                continue
            grids = (axes[0].grid, axes[1].grid)
            ax.contour(*grids, below.T, levels=[level], colors="#111111", linewidths=1.1, linestyles=[style])
            ax.plot([], [], color="#111111", linewidth=1.1, linestyle=style, label=f"{share:.0%} of its mass")


def _below_peak(view: View) -> NDArray[Any]:
    """The log density less that of its peak; never below -700, the least that has an exponential."""
    assert view.log_density is not None
    log_density = view.log_density.astype(np.float64)
    return np.maximum(log_density - log_density.max(), -700.0)


def _between_bounds(view: View, axes: Sequence[Axis]) -> float:
    """The probability of an action at none of the bounds; the axes are independent."""
    assert view.masses is not None
    held = [mass.sum() for axis, mass in zip(axes, view.masses, strict=True) if axis.kind == "clip"]
    return math.prod(1 - float(mass) for mass in held)


def _draw_curve(ax: Any, view: View, axis: Axis) -> None:
    assert view.log_density is not None
    assert view.best is not None
    density = np.exp(view.log_density.astype(np.float64))
    ax.fill_between(axis.grid, density, color=SHADES[1], linewidth=0)
    ax.plot(axis.grid, density, color=INK[0], linewidth=1.6)
    told = view.masses is not None and bool((view.masses >= TOLD).any())
    peak = float(density.max())
    top = (1.3 if told else 1.08) * (peak if peak > 1e-100 else 1.0)  # there may be none: all of it is at a bound
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
            if mass >= TOLD:
                _say_mass(ax, side, bound, float(mass), inside=axis.kind == "clip")
            _set_ticks(ax, axis, "x" if side in ("left", "right") else "y")
    if len(axes) == 1:
        ax.spines["top"].set_visible(False)
        ax.spines["bottom"].set_visible(False)


def _say_mass(ax: Any, side: str, bound: float, mass: float, *, inside: bool) -> None:
    """Beside a bound: within the box where the actions are at it, beyond it where the density goes on."""
    upright, sign = side in ("left", "right"), 1 if inside == (side in ("left", "bottom")) else -1
    text = f"{mass:.0%} at the bound" if inside else f"{mass:.0%} beyond"
    ax.annotate(
        text.replace(" the", "\nthe") if upright else text,
        (bound, 0.97) if upright else (0.5 if inside else 0.03, bound),
        xycoords=("data", "axes fraction") if upright else ("axes fraction", "data"),
        xytext=(4 * sign, 0) if upright else (0, 5 * sign),
        textcoords="offset points",
        ha=("left" if sign > 0 else "right") if upright else "center" if inside else "left",
        va="bottom" if sign > 0 and not upright else "top",
        fontsize=8,
        color="#8a2f1b",
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1.0},
        zorder=4,
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
    few = "." if len(steps) < 3 else None
    if name == "covariance":
        if values.max() > 20 * values.min() > 0:
            ax.set_yscale("log")
        ax.fill_between(steps, values[:, 0], values[:, 1], color=SHADES[1], linewidth=0)
        apart = values[-1, 1] > 1.001 * values[-1, 0]
        for column, label, away in zip(values.T, ("smallest", "largest"), (-1, 1), strict=True):
            ax.plot(steps, column, color=INK[0], linewidth=1.6, marker=few)
            if apart:
                ends = {"xytext": (-2, 5 * away), "textcoords": "offset points", "fontsize": 8}
                ax.annotate(label, (steps[-1], column[-1]), ha="right", va="bottom" if away > 0 else "top", **ends)
        ax.margins(y=0.25)
    else:
        many = len(steps) >= 40
        if many:
            ax.plot(steps, values[:, 0], ".", color=INK[0], alpha=0.25, markersize=4, markeredgewidth=0)
        line = smooth(values[:, 0]) if many else values[:, 0]
        ax.plot(steps, line, color=INK[0], linewidth=1.6, marker=few)
    if name == "at_bound":
        ax.set_ylim(0, max(1.1 * float(values.max()), 0.05))
        ax.yaxis.set_major_formatter(lambda y, _: f"{100 * y:g} %")
    ax.set_title(HISTORY[name], fontsize=9)
    ax.set_xlabel("environment steps")
    as_curve(ax)
