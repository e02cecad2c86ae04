"""Heliostat: a mirror on two motors reflects the moving sun onto a fixed target.

The action is where the mirror's normal n shall point, as (azimuth, elevation). With unit vectors s to the sun and t to
the target, all seen from the mirror,

    r = 2 (n . s) n - s            the reflected ray
    reward = r . t = cos(error)    n as the action put it, s as it was observed; the sun moves afterwards

so the best normal is the bisector (s + t) / |s + t|, which always lies in the box. Its azimuth often crosses 0 = 2 pi:
whoever treats the azimuth as an interval instead of a circle pays for it there.

Angles are in radians, azimuth counterclockwise from the x axis, elevation from the ground. All arithmetic is
elementwise in float64, one component after the other, so that N mirrors at once give the same bits as N alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike, NDArray

from covary.envs.tensors import TensorEnv

Array = NDArray[np.float64]

STEPS = 64  # steps in an episode, which is then truncated
SUN_ELEVATION = (0.05, 1.5)  # rad; the drifting sun is held in here
ACTION_LOW = np.zeros(2, np.float32)
ACTION_HIGH = np.array([2 * np.pi, np.pi / 2], np.float32)
START = (0.0, np.pi / 4)  # rad; the normal's azimuth and elevation before the first action

# One episode's draw, in this order: the sun's azimuth, its turn a step, the sun's elevation, its drift a step, the
# target's azimuth and elevation. Each uniform in [low, high), in rad.
DRAW_LOW = np.array([0.0, -0.1, 0.2, -0.01, 0.0, 0.0])
DRAW_HIGH = np.array([2 * np.pi, 0.1, 1.4, 0.01, 2 * np.pi, 0.6])


def draw_episode(rng: np.random.Generator) -> Array:
    """One episode's six numbers, (6,), from one call: a batch of environments consumes each stream as one does."""
    return rng.uniform(DRAW_LOW, DRAW_HIGH)


def direction(angles: Array) -> Array:
    """Unit vectors, (3, B*), of (azimuth, elevation), (2, B*), in rad."""
    cos, sin = np.cos(angles), np.sin(angles)
    return np.stack((cos[1] * cos[0], cos[1] * sin[0], sin[1]))


def reflection(normal: Array, sun: Array) -> Array:
    """The unit vector, (3, B*), along which a mirror with this normal, (3, B*), sends light from the sun, (3, B*)."""
    return 2.0 * _dot(normal, sun) * normal - sun


def aim(ray: Array, target: Array) -> tuple[Array, Array]:
    """Cosine and degrees, both (B*), of the angle between two unit vectors, (3, B*).

    The degrees come from atan2(|ray x target|, ray . target): near zero, arccos would lose half of the digits.
    """
    cosine = _dot(ray, target)
    crossed = ray[[1, 2, 0]] * target[[2, 0, 1]] - ray[[2, 0, 1]] * target[[1, 2, 0]]
    degrees = np.arctan2(np.sqrt(_dot(crossed, crossed)), cosine) * (180.0 / np.pi)
    return np.minimum(np.maximum(cosine, -1.0), 1.0), degrees


def best_action(obs: ArrayLike) -> Array:
    """The optimum: azimuth in [0, 2 pi) and elevation, (B*, 2) in rad, of the bisector of sun and target.

    Args:
        obs: observations, (B*, 9), or only their first six numbers, the unit vectors to sun and target, (B*, 6).
    """
    vectors = np.asarray(obs, np.float64)
    x, y, z = np.moveaxis(vectors[..., :3] + vectors[..., 3:6], -1, 0)
    azimuth = np.arctan2(y, x) % (2 * np.pi)
    azimuth = np.where(azimuth < 2 * np.pi, azimuth, 0.0)  # a tiny negative angle rounds up to 2 pi itself
    return np.stack((azimuth, np.arctan2(z, np.hypot(x, y))), axis=-1)


def _dot(a: Array, b: Array) -> Array:
    p = a * b
    return p[0] + p[1] + p[2]  # not einsum or @: those round differently for different batch sizes


class _Mirrors:
    """The state of N heliostats and its laws; both environments below are faces of it."""

    def __init__(self, num: int) -> None:
        self.step_count = np.full(num, STEPS)  # as if over, until the first reset
        self.sun_angles, self.sun_turn = np.zeros((2, num)), np.zeros((2, num))
        self.vectors = np.zeros((9, num))  # to the sun, to the target, the normal: what is observed, before rounding

    def reset(self, which: NDArray[np.intp], draws: Array) -> None:
        """Starts episodes in the mirrors numbered which, (M,), from their draws, (M, 6)."""
        drawn = np.ascontiguousarray(draws.T)  # (6, M)
        self.step_count[which] = 0
        self.sun_angles[:, which], self.sun_turn[:, which] = drawn[[0, 2]], drawn[[1, 3]]
        self.vectors[:3, which] = direction(drawn[[0, 2]])
        self.vectors[3:6, which] = direction(drawn[4:6])
        self.vectors[6:, which] = direction(np.repeat(np.array(START)[:, None], len(which), axis=1))

    def step(self, action: ArrayLike) -> tuple[Array, Array, NDArray[np.bool_]]:
        """Reward, error in degrees, and truncated, all (N,), of actions (N, 2); then the sun moves."""
        num = len(self.step_count)
        wanted = np.asarray(action, np.float64)
        if wanted.shape != (num, 2):
            raise ValueError(f"A heliostat's action is (azimuth, elevation): expected {(num, 2)}, got {wanted.shape}.")
        if np.isnan(wanted).any():
            row = int(np.isnan(wanted).any(axis=1).argmax())
            raise ValueError(
                f"A heliostat's action must be a number, but row {row} of {num} is {wanted[row]}. "
                f"Most often the policy's own output is NaN."
            )
        if (self.step_count >= STEPS).any():
            raise gym.error.ResetNeeded(
                f"An episode is over after {STEPS} steps: call reset before the first step and after a truncated one."
            )
        held = np.minimum(np.maximum(wanted, ACTION_LOW), ACTION_HIGH)
        self.vectors[6:] = direction(np.ascontiguousarray(held.T))
        reward, degrees = aim(reflection(self.vectors[6:], self.vectors[:3]), self.vectors[3:6])
        self.sun_angles += self.sun_turn
        self.sun_angles[1] = np.minimum(np.maximum(self.sun_angles[1], SUN_ELEVATION[0]), SUN_ELEVATION[1])
        self.vectors[:3] = direction(self.sun_angles)
        self.step_count += 1
        return reward, degrees, self.step_count >= STEPS

    def obs(self) -> NDArray[np.float32]:
        """(N, 9), a new array at each call."""
        return self.vectors.T.astype(np.float32, order="C")


def spaces() -> tuple[gym.Space[Any], gym.Space[Any]]:
    """One environment's observation and action space, new ones, since a space carries its own sampler."""
    action = gym.spaces.Box(ACTION_LOW, ACTION_HIGH, dtype=np.float32)
    return gym.spaces.Box(-1.0, 1.0, (9,), np.float32), action


class Heliostat(gym.Env[NDArray[np.float32], NDArray[np.float32]]):
    """One heliostat. Observation (9,) float32: unit vectors to the sun, to the target, and the mirror's normal.

    Action (2,): the normal's azimuth in [0, 2 pi] and elevation in [0, pi/2], clipped to that box; NaN raises
    ValueError. Reward: the cosine of the pointing error, at most 1; `info["error_deg"]` is that error in degrees.
    Truncated after 64 steps, never terminated.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012  (gymnasium's own declaration)

    def __init__(self, render_mode: str | None = None) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode must be None or 'rgb_array', got {render_mode!r}.")
        self.render_mode = render_mode
        self.observation_space, self.action_space = spaces()
        self._mirrors = _Mirrors(1)
        self._shown: Array | None = None  # sun, target and normal, (3, 3), as the latest reward saw them
        self._painter: _Painter | None = None

    @staticmethod
    def on_device(num_envs: int, device: Any) -> TensorEnv:
        """As many of them as tensors on a device."""
        from covary.envs.heliostat_tensors import HeliostatTensors

        return HeliostatTensors(num_envs, device)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        self._mirrors.reset(np.array([0]), draw_episode(self.np_random)[None])
        self._shown = self._mirrors.vectors.reshape(3, 3).copy()
        return self._mirrors.obs()[0], {}

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        sun = self._mirrors.vectors[:3, 0].copy()
        reward, degrees, truncated = self._mirrors.step(np.asarray(action)[None])
        self._shown = np.stack((sun, self._mirrors.vectors[3:6, 0], self._mirrors.vectors[6:, 0]))
        return self._mirrors.obs()[0], float(reward[0]), False, bool(truncated[0]), {"error_deg": float(degrees[0])}

    def render(self) -> NDArray[np.uint8] | None:
        """The moment of the latest reward, before the sun moved on: (480, 480, 3) uint8; None without a mode."""
        if self.render_mode is None:
            return None
        if self._shown is None:
            raise gym.error.ResetNeeded("There is nothing to draw yet: call reset before render.")
        self._painter = self._painter or _Painter()
        sun, target, normal = self._shown
        return self._painter.paint(sun, target, normal, int(self._mirrors.step_count[0]))


class HeliostatVectorEnv(gym.vector.VectorEnv[NDArray[np.float32], NDArray[np.float32], NDArray[Any]]):
    """N heliostats stepped at once: with the same seeds and actions, the same bits as N single environments.

    It never resets by itself: after an episode's end call `reset(options={"reset_mask": mask})`, mask (N,) bool, as
    in gymnasium's SyncVectorEnv with autoreset disabled. An int seed means seed + i for environment i.
    """

    metadata = {"autoreset_mode": gym.vector.AutoresetMode.DISABLED}  # noqa: RUF012

    def __init__(self, num_envs: int = 64) -> None:
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = spaces()
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._mirrors = _Mirrors(num_envs)
        self._rngs: list[np.random.Generator | None] = [None] * num_envs

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        if isinstance(seed, int):
            seed = [seed + i for i in range(self.num_envs)]
        seeds = [None] * self.num_envs if seed is None else list(seed)
        if len(seeds) != self.num_envs:
            raise ValueError(f"A list of seeds needs one for each of {self.num_envs} environments, got {len(seeds)}.")
        which = np.flatnonzero(self._reset_mask(options))
        for i in which:
            if seeds[i] is not None or self._rngs[i] is None:
                self._rngs[i], _ = gym.utils.seeding.np_random(seeds[i])
        self._mirrors.reset(which, np.stack([draw_episode(self._rngs[i]) for i in which]))  # type: ignore[arg-type]
        return self._mirrors.obs(), {}

    def _reset_mask(self, options: dict[str, Any] | None) -> NDArray[np.bool_]:
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, np.bool_))
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            raise TypeError(f"options['reset_mask'] must be a bool array, got {getattr(mask, 'dtype', type(mask))}.")
        if mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(f"options['reset_mask'] must be ({self.num_envs},) with a True in it, got {mask}.")
        return mask

    def step(
        self, actions: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], Array, NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        reward, degrees, truncated = self._mirrors.step(actions)
        info = {"error_deg": degrees, "_error_deg": np.ones(self.num_envs, np.bool_)}
        return self._mirrors.obs(), reward, np.zeros(self.num_envs, np.bool_), truncated, info


class _Painter:
    """Draws sun, mirror, rays and target in an orthographic view; the figure and its ground are made once."""

    _GROUND = -0.42  # the ground's height under the mirror's pivot, in lengths of a ray
    _SHEET = (-1.2, 1.2, -1.02, 1.38)  # left, right, bottom, top, in the same lengths
    _SUN, _INK, _STEEL = "#ffc53d", "#e8eef7", "#8fa3bd"

    def __init__(self) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(4.8, 4.8), dpi=100)
        self._canvas = FigureCanvasAgg(figure)
        self._axes = figure.add_axes((0.0, 0.0, 1.0, 1.0), xlim=self._SHEET[:2], ylim=self._SHEET[2:])
        self._axes.axis("off")
        self._moving: list[Any] = []
        sky = np.linspace(0.0, 1.0, 256)[:, None, None] * np.array([-0.13, -0.15, -0.17]) + np.array([0.2, 0.26, 0.36])
        self._axes.imshow(sky, extent=self._SHEET, origin="lower", aspect="auto", zorder=0)
        rim = self._circle(1.0)
        self._axes.fill(*rim, fc="#2b3a4d", ec="#7f93ad", lw=1.5, zorder=1)
        for radius in (1 / 3, 2 / 3):
            self._axes.plot(*self._circle(radius), c="#3d4f66", lw=0.8, zorder=1.1)
        for degrees in range(0, 360, 15):
            spoke = direction(np.radians([degrees, 0.0]))[:2, None] * ([0.94, 1.0] if degrees % 90 else [0.0, 1.0])
            self._axes.plot(*self._ground(spoke), c="#4b607a" if degrees % 90 == 0 else "#7f93ad", lw=1, zorder=1.1)
            if degrees % 90 == 0:
                x, y = self._ground(spoke[:, 1] * 1.13)
                self._axes.text(x, y, f"{degrees}°", c="#9fb1c8", size=9, ha="center", va="center", zorder=1.2)

    @staticmethod
    def _flat(xyz: Array) -> Array:
        """(2, B*) on paper of (3, B*) in the world; the camera stands at azimuth -60 and elevation 26 degrees."""
        right, up = direction(np.radians([30.0, 0.0])), direction(np.radians([120.0, 64.0]))
        return np.stack((right, up)) @ xyz

    def _ground(self, xy: Array) -> Array:
        return self._flat(np.stack((xy[0], xy[1], np.full_like(xy[0], self._GROUND))))

    def _circle(self, radius: float) -> Array:
        turn = np.linspace(0.0, 2 * np.pi, 181)
        return self._ground(radius * np.stack((np.cos(turn), np.sin(turn))))

    def _line(self, start: Array, end: Array, **style: Any) -> None:
        self._moving += self._axes.plot(*self._flat(np.stack((start, end), axis=1)), **style)

    def _dots(self, at: Array, *layers: tuple[float, Any, float], zorder: float) -> None:
        x, y = self._flat(at)
        for size, colour, alpha in layers:
            self._moving += self._axes.plot(x, y, "o", ms=size, c=colour, alpha=alpha, mew=0, zorder=zorder)

    def paint(self, sun: Array, target: Array, normal: Array, step: int) -> NDArray[np.uint8]:
        """One frame, (480, 480, 3), of three unit vectors (3,)."""
        for artist in self._moving:
            artist.remove()
        ray, pivot, drop = reflection(normal, sun), np.zeros(3), np.array([1.0, 1.0, 0.0])
        foot = np.array([0.0, 0.0, self._GROUND])
        degrees = float(aim(ray, target)[1])
        hit = np.exp(-degrees / 12)  # the ray is green on the target and red far from it
        mixed = hit * np.array([0.36, 0.9, 0.55]) + (1 - hit) * np.array([1.0, 0.4, 0.33])
        glow = tuple((mixed / mixed.max()).tolist())
        self._moving = []
        # Plumb lines and their shadows on the ground tell how high and in which azimuth things are.
        for end, colour in ((sun, self._SUN), (target, self._INK), (ray, glow)):
            self._line(foot, end * drop + foot, c=colour, lw=1.2, alpha=0.35, zorder=1.5)
        self._line(sun * drop + foot, sun, c=self._SUN, lw=1, ls=":", alpha=0.6, zorder=2)
        self._line(target * drop + foot, target, c=self._STEEL, lw=3, solid_capstyle="round", zorder=2)
        self._line(foot, pivot, c=self._STEEL, lw=6, solid_capstyle="round", zorder=2)

        # A ray that leaves the side of the mirror we see is drawn over the facet, else under it.
        camera = direction(np.radians([-60.0, 26.0]))
        faces_us = float(normal @ camera)
        over = 5.0 if (normal @ sun) * faces_us >= 0 else 3.0
        self._line(pivot, target, c=self._INK, lw=1.2, ls=(0, (4, 4)), alpha=0.7, zorder=over)
        for width, alpha in ((9, 0.12), (5, 0.25), (2, 1.0)):
            self._line(pivot, sun, c=self._SUN, lw=width, alpha=alpha, zorder=over, solid_capstyle="round")
            self._line(pivot, ray, c=glow, lw=width, alpha=alpha, zorder=over, solid_capstyle="round")
        for tail, head, colour in ((0.66 * sun, 0.6 * sun, self._SUN), (0.6 * ray, 0.66 * ray, glow)):
            arrow = {"arrowstyle": "-|>,head_width=0.35,head_length=0.6", "color": colour, "lw": 2}
            (x, y), (x0, y0) = self._flat(head), self._flat(tail)
            self._moving.append(self._axes.annotate("", (x, y), (x0, y0), arrowprops=arrow, zorder=over + 0.5))
        # The facet: right runs level, up is the rest of the frame; level is lost only for a normal straight up.
        right = np.cross([0.0, 0.0, 1.0], normal)
        right = right / np.linalg.norm(right) if np.linalg.norm(right) > 1e-9 else np.array([0.0, 1.0, 0.0])
        corners = np.array([[-1, 1, 1, -1], [-1, -1, 1, 1]]) * np.array([[0.3], [0.22]])
        facet = self._flat(np.stack((right, np.cross(normal, right)), axis=1) @ corners)
        front_or_back = np.array([0.55, 0.78, 0.95] if faces_us > 0 else [0.3, 0.35, 0.42])
        shade = tuple(np.clip(front_or_back * (0.65 + 0.45 * abs(faces_us)), 0, 1).tolist())
        self._moving += self._axes.fill(*facet, fc=shade, ec="white", lw=1.5, joinstyle="round", zorder=4)
        for a, b, c, d in (facet.T, np.roll(facet.T, 1, axis=0)):  # seams between four panes
            seam = np.stack((a + b, c + d), axis=1) / 2
            self._moving += self._axes.plot(*seam, c="white", lw=0.7, alpha=0.6, zorder=4)
        self._line(pivot, 0.3 * normal, c="white", lw=1.5, zorder=4.5 if faces_us > 0 else 3.5)

        self._dots(sun, (58, self._SUN, 0.10), (42, self._SUN, 0.2), (26, self._SUN, 1.0), zorder=6)
        self._dots(target, (19, "#ffffff", 1.0), (13, "#e5484d", 1.0), (6, "#ffffff", 1.0), zorder=6)
        self._dots(ray, (10, glow, 0.4), (6, glow, 1.0), zorder=6.5)
        place: dict[str, Any] = {"c": self._INK, "va": "center", "zorder": 9}
        self._moving.append(self._axes.text(-1.13, 1.27, f"pointing error {degrees:.1f}°", size=14, **place))
        self._moving.append(self._axes.text(1.13, 1.27, f"step {step}/{STEPS}", size=11, ha="right", **place))
        self._canvas.draw()
        return np.asarray(self._canvas.buffer_rgba())[..., :3].copy()
