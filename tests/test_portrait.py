"""What a picture of a policy shows is what the policy is: densities, ellipses, points, and how they came about."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
import worlds
from gymnasium.spaces import Box
from matplotlib.contour import QuadContourSet
from matplotlib.path import Path as Outline
from sizes import now_and_then

import covary
from covary import policy_plots, report
from covary.agent import Agent
from covary.cli import run
from covary.distributions import Beta, BoxNormal, Categorical, Choices, Product, marginal
from covary.evaluation import walk
from covary.heads import PolicyConfig
from covary.portrait import portray
from covary.runs import Run

WORLDS = Path(worlds.__file__)
INF, TWO_PI = math.inf, 2 * math.pi
FALSE_ALARM = 1e-6  # of each statistical test
SIGMAS = 4.9  # two-sided normal deviation of that probability
DRAWS = 40_000

KINDS = {  # low, high, word for `bounds`
    "free": (-INF, INF, "auto"),
    "squash": (-1.0, 3.0, "auto"),
    "up": (0.5, INF, "auto"),
    "down": (-INF, 2.0, "auto"),
    "wrap": (-2.0, 3.0, "auto"),
    "clip": (-1.0, 1.5, "clip"),
    "clip_up": (-0.5, INF, "clip"),
    "mean": (-1.0, 1.0, "mean"),
    "beta": (0.0, 2.0, "beta"),
}


def agent_of(*names, **policy):
    """An agent whose density is not the same at any two observations, nor in any two dimensions."""
    low, high, words = zip(*(KINDS[name] for name in names), strict=True)
    space = Box(np.array(low, np.float32), np.array(high, np.float32))
    periodic = tuple(i for i, name in enumerate(names) if name == "wrap")
    config = PolicyConfig(bounds=words, periodic=periodic, init_std=0.2, **policy)
    agent = Agent("ppo", Box(-1, 1, (3,)), space, policy=config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for x in agent.policy.parameters():
            x.add_(0.15 * torch.randn(x.shape, generator=generator))
    return agent


OBS = np.array([[0.1, -0.4, 0.9], [-1.0, 1.0, 0.3]], np.float32)


def portrait_of(agent, dims=None):
    return portray(agent, OBS, ["one", "other"], dims, "")


def within(portrait, view):
    """The mass that the grid shows."""
    density = np.exp(view.log_density.astype(float))
    for axis in reversed(portrait.axes):
        density = density @ axis.cells
    return float(density)


def drawn(agent, k, dims):
    """(DRAWS, d) latents' images of the whole density at an observation, before they are executed."""
    with torch.no_grad():
        density = agent.policy(torch.from_numpy(OBS[k : k + 1]))
        noise = density.noise((DRAWS,), torch.Generator().manual_seed(5))
        return density.to_action(density.sample_latent((DRAWS,), noise=noise))[:, 0, dims].double().numpy()


# ----------------------------------------------------------------------------------------------- the density


NARROW = {  # names, options, how far from 1 the mass that is drawn may be
    "1e-5 of the width": (("squash",), {"init_std": 1e-5}, 1e-2),
    "1e-4 in two dimensions": (("squash", "squash"), {"init_std": 1e-4, "covariance": "full"}, 1e-2),
    "angles": (("wrap", "wrap"), {"init_std": 1e-4}, 1e-2),
    "an angle and a clip": (("wrap", "clip"), {"init_std": 1e-3}, 1e-2),
    "open": (("free", "up"), {"init_std": 1e-4}, 1e-2),
    "means": (("mean", "clip"), {"init_std": 1e-4}, 1e-2),
    "a Beta": (("beta",), {"init_std": 3.6e-5}, 1e-2),
    "two Betas": (("beta", "beta"), {"init_std": 1e-4}, 1e-2),
    "a Beta and a clip": (("beta", "clip"), {"init_std": 1e-4}, 1e-2),
    "less than float32 can hold": (("squash", "free"), {"init_std": 1e-9}, INF),
    "one less than float32 can hold": (("free",), {"init_std": 1e-9}, INF),
}


@pytest.mark.parametrize("name", NARROW)
def test_a_narrow_policy_is_drawn_where_it_is(name):
    """Each observation's peak is in its picture, and nothing warns."""
    names, options, error = NARROW[name]
    low, high, words = zip(*(KINDS[each] for each in names), strict=True)
    periodic = tuple(i for i, each in enumerate(names) if each == "wrap")
    policy = PolicyConfig(bounds=words, periodic=periodic, **options)
    agent = Agent("ppo", Box(-1, 1, (3,)), Box(np.float32(low), np.float32(high)), policy=policy)
    with torch.no_grad():
        for part in getattr(agent.policy.head, "parts", [agent.policy.head]):
            part.out.weight[: 2 * len(names)] *= 30  # another place at each observation
    portrait = portrait_of(agent)
    for view in portrait.views:
        assert within(portrait, view) == pytest.approx(1, abs=error)
        if error < 1:
            peak = np.unravel_index(view.log_density.argmax(), view.log_density.shape)
            found = np.array([axis.grid[i] for axis, i in zip(portrait.axes, peak, strict=True)])
            spread = view.samples.std(0) + 1e-6
            assert (np.abs(found - view.best) < spread).all()
    policy_plots.figure_of(portrait, []).canvas.draw()


@pytest.mark.parametrize("names", [("clip",), ("clip", "clip"), ("clip", "beta")])
def test_a_policy_that_is_all_at_a_bound_is_drawn(names):
    agent = agent_of(*names)
    with torch.no_grad():
        getattr(agent.policy.head, "parts", [agent.policy.head])[0].out.bias += 1e4
    portrait = portrait_of(agent)
    assert portrait.views[0].masses[0].max() == 1
    policy_plots.figure_of(portrait, []).canvas.draw()


def test_lines_around_a_share_of_the_mass_count_what_is_at_a_bound():
    """Of a clipped dimension with half of its mass at the bounds there is a line around 39 %, and none around 86 %."""
    agent = agent_of("clip", "beta")
    with torch.no_grad():
        agent.policy.head.parts[0].log_std += 1.0
    portrait = portrait_of(agent)
    axes, view = portrait.axes, portrait.views[0]
    interior = 1 - view.masses[0].sum()
    assert 0.4 < interior < 0.8
    figure = policy_plots.figure_of(portrait, [])
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert "39% of its mass" in labels
    assert "86% of its mass" not in labels
    (line,) = [c for c in figure.axes[0].collections if isinstance(c, QuadContourSet) and not c.filled]
    density = np.exp(view.log_density.astype(float))
    inside = density >= density.max() * math.exp(line.levels[0])
    assert (density * inside * np.outer(axes[0].cells, axes[1].cells)).sum() == pytest.approx(0.3935, abs=5e-3)


@pytest.mark.parametrize("name", KINDS)
def test_a_curve_and_its_masses_integrate_to_one(name):
    agent = agent_of(name)
    portrait = portrait_of(agent)
    for view in portrait.views:
        at_bounds = view.masses.sum() if portrait.axes[0].kind == "clip" else 0.0
        assert within(portrait, view) + at_bounds == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("names", "covariance"),
    [
        (("squash", "squash"), "full"),
        (("wrap", "squash"), "full"),
        (("wrap", "wrap"), "full"),
        (("free", "up"), "full"),
        (("down", "mean"), "full"),
        (("wrap", "clip"), "full"),
        (("clip_up", "squash"), "full"),
        (("clip", "free"), "lowrank"),
        (("clip", "clip"), "diagonal"),
        (("beta", "beta"), "diagonal"),
        (("beta", "wrap"), "diagonal"),
        (("clip", "beta"), "diagonal"),
    ],
)
def test_a_plane_and_its_masses_integrate_to_one(names, covariance):
    portrait = portrait_of(agent_of(*names, covariance=covariance))
    for view in portrait.views:
        inside = [
            1 - m.sum() if axis.kind == "clip" else 1.0 for axis, m in zip(portrait.axes, view.masses, strict=True)
        ]
        assert within(portrait, view) == pytest.approx(math.prod(inside), abs=2e-3)
        for axis, masses in zip(portrait.axes, view.masses, strict=True):
            assert masses.sum() == 0 or names[axis.dim] in ("clip", "clip_up", "mean")


@pytest.mark.parametrize("names", [("squash", "wrap", "free"), ("wrap", "up", "squash"), ("beta", "squash", "wrap")])
@pytest.mark.parametrize("covariance", ["full", "lowrank", "diagonal"])
def test_a_marginal_is_what_samples_of_the_whole_are(names, covariance):
    """Pearson's chi-square over cells of a coarser grid; all samples outside the window in a cell of their own."""
    agent = agent_of(*names, covariance=covariance, state_dependent=True)
    dims = [2, 0]
    portrait = portrait_of(agent, dims)
    x, y = portrait.axes
    mass = np.exp(portrait.views[1].log_density.astype(float)) * np.outer(x.cells, y.cells)
    bins = {"bins": 12, "range": [x.window, y.window]}
    centres = np.meshgrid(x.grid, y.grid, indexing="ij")
    expected = DRAWS * np.histogram2d(*(c.ravel() for c in centres), **bins, weights=mass.ravel())[0].reshape(-1)
    got = np.histogram2d(*drawn(agent, 1, dims).T, **bins)[0].reshape(-1)
    counted = expected > 20
    expected, got = (np.append(a[counted], DRAWS - a[counted].sum()) for a in (expected, got))
    assert len(expected) > 10
    assert ((got - expected) ** 2 / expected).sum() < scipy.stats.chi2.isf(FALSE_ALARM, len(expected) - 1)


def test_a_marginal_of_one_dimension_of_a_full_covariance_is_its_own_gaussian():
    covariance = torch.tensor([[4.0, 1.0, 0.5], [1.0, 9.0, -2.0], [0.5, -2.0, 1.0]])
    whole = BoxNormal(torch.tensor([1.0, 2.0, 3.0]), covariance_matrix=covariance)
    two = marginal(whole, (2, 1))
    assert two.loc.tolist() == [3, 2]
    assert two.covariance_matrix.numpy() == pytest.approx(np.array([[1, -2], [-2, 9]]), rel=1e-5)
    assert marginal(whole, [1]).scale.item() == pytest.approx(3, rel=1e-6)


def test_marginals_of_products_and_choices():
    logits = torch.arange(24.0).reshape(2, 3, 4).sin()
    torch.testing.assert_close(marginal(Choices(logits), [2, 0]).probs, logits[:, [2, 0]].softmax(-1))
    beta = Beta(torch.tensor([[2.0, 3.0]]), torch.tensor([[4.0, 5.0]]))
    gauss = BoxNormal(torch.tensor([[0.0, 1.0]]), scale=torch.tensor([[1.0, 2.0]]))
    both = Product([gauss, beta], [[3, 0], [1, 2]])
    x = torch.tensor([[0.3, 0.7, -1.0]])
    law = marginal(both, [2, 1, 3])  # the Beta's second, its first, and the Gaussian's first
    separate = marginal(beta, [1, 0]).log_prob(x[:, :2]) + marginal(gauss, [0]).log_prob(x[:, 2:])
    assert law.log_prob(x).item() == pytest.approx(separate.item(), rel=1e-6)
    with pytest.raises(TypeError, match="Categorical has no marginals"):
        marginal(Categorical(torch.zeros(1, 2)), [0])


# ------------------------------------------------------------------------------------------------ the ellipses


@pytest.mark.parametrize("names", [("squash", "up", "free"), ("mean", "squash", "down")])
@pytest.mark.parametrize("covariance", ["full", "lowrank", "diagonal"])
def test_an_ellipse_holds_as_many_samples_as_it_should(names, covariance):
    agent = agent_of(*names, covariance=covariance)
    portrait = portrait_of(agent, [0, 1])
    for k, view in enumerate(portrait.views):
        for ring, share in zip(view.rings, (1 - math.exp(-0.5), 1 - math.exp(-2)), strict=True):
            inside = Outline(ring).contains_points(drawn(agent, k, [0, 1])).mean()
            assert (
                abs(inside - share) < SIGMAS * math.sqrt(share * (1 - share) / DRAWS) + 1e-4
            )  # a polygon of 720 sides


@pytest.mark.parametrize("name", ["free", "squash", "up", "down", "mean"])
def test_an_interval_holds_as_many_samples_as_it_should(name):
    agent = agent_of(name)
    for k, view in enumerate(portrait_of(agent).views):
        x = drawn(agent, k, [0])
        for ring, share in zip(view.rings, (0.682689, 0.954500), strict=True):
            left, right = sorted(ring[:, 0])
            inside = ((x > left) & (x < right)).mean()
            assert abs(inside - share) < SIGMAS * math.sqrt(share * (1 - share) / DRAWS)


def test_an_ellipse_is_broken_at_the_seam_and_whole_where_it_does_not_reach_it():
    space = Box(np.zeros(2, np.float32), np.array([TWO_PI, 1], np.float32))
    agent = Agent("ppo", Box(-1, 1, (3,)), space, policy=PolicyConfig(periodic=(0,), init_std=0.1))
    rings = portrait_of(agent).views[0].rings  # the first policy is in the middle, with 0.1 of the circle
    assert all(np.isfinite(ring).all() for ring in rings)
    with torch.no_grad():
        agent.policy.head.out.bias[0] = 1.0  # the other way round
    ring = portrait_of(agent).views[0].rings[0]
    assert 0 < np.isnan(ring).any(-1).sum() <= 4
    assert np.nanmin(ring[:, 0]) < 0.5
    assert np.nanmax(ring[:, 0]) > TWO_PI - 0.5
    steps = np.abs(np.diff(ring[:, 0]))
    assert np.nanmax(steps) < 0.1, "no line across the whole box"


def test_an_interval_round_the_whole_circle_is_all_of_it():
    space = Box(np.zeros(1, np.float32), np.full(1, TWO_PI, np.float32))
    agent = Agent("ppo", Box(-1, 1, (3,)), space, policy=PolicyConfig(periodic=(0,), init_std=0.3))
    one, two = portrait_of(agent).views[0].rings
    assert one[1, 0] - one[0, 0] == pytest.approx(0.6 * TWO_PI, rel=1e-2)
    assert two[:, 0].tolist() == pytest.approx([0, TWO_PI])


def test_a_beta_has_no_ellipse():
    assert portrait_of(agent_of("beta", "beta")).views[0].rings == ()


# ---------------------------------------------------------------------------------------------- points and masses


def test_points_are_as_they_are_executed():
    agent = agent_of("mean", "clip", "squash")
    portrait = portrait_of(agent, [1, 0])
    with torch.no_grad():
        best = agent.decode(agent.policy(torch.from_numpy(OBS)).deterministic_action.numpy())
    for k, view in enumerate(portrait.views):
        assert view.best.tolist() == best[k][[1, 0]].tolist()
        assert ((view.samples >= [-1, -1]) & (view.samples <= [1.5, 1])).all()
        assert len(np.unique(view.samples, axis=0)) > 30
        actions = drawn(agent, k, [1, 0])
        for axis, masses, x in zip(portrait.axes, view.masses, actions.T, strict=True):
            for mass, there in zip(masses, ((x <= axis.low).mean(), (x >= axis.high).mean()), strict=True):
                assert abs(mass - there) < SIGMAS * math.sqrt(mass * (1 - mass) / DRAWS) + 1e-6
    assert np.array_equal(portrait.views[0].samples, portrait_of(agent, [1, 0]).views[0].samples)


def test_the_walk_is_the_first_episode_of_an_evaluation():
    agent = covary.untrained("CartPole-v1", seed=3)
    before = agent.learner.generator.get_state()
    seen = walk(agent, "CartPole-v1")
    assert len(seen) == covary.evaluate(agent, "CartPole-v1", 1).lengths[0]
    assert np.array_equal(seen, walk(agent, "CartPole-v1"))
    assert torch.equal(agent.learner.generator.get_state(), before)


# -------------------------------------------------------------------------------------------- the numbers of a line


@pytest.mark.parametrize("covariance", ["fixed", "diagonal", "lowrank", "full"])
@pytest.mark.parametrize("state_dependent", [False, True])
def test_the_extreme_eigenvalues_are_those_of_the_covariance(covariance, state_dependent):
    agent = agent_of("squash", "wrap", "free", covariance=covariance, state_dependent=state_dependent)
    spread = report._spread(agent, OBS)
    with torch.no_grad():
        values = torch.linalg.eigvalsh(agent.policy(torch.from_numpy(OBS)).covariance_matrix.double())
    assert spread["latent_var_min"] == pytest.approx(values[:, 0].mean().item(), rel=1e-4)
    assert spread["latent_var_max"] == pytest.approx(values[:, -1].mean().item(), rel=1e-4)


def test_a_covariance_that_is_not_finite_has_no_eigenvalues():
    tril = torch.tensor([[[1.0, 0.0], [0.5, math.nan]], [[1.0, 0.0], [0.0, 2.0]]])
    values = BoxNormal(torch.zeros(2, 2), factor=tril, validate_args=False).latent_variances
    assert values[0].isnan().all()
    assert values[1].tolist() == pytest.approx([1, 4])


def test_the_share_at_a_bound():
    agent = agent_of("clip", "mean", "wrap", "up")
    obs = np.repeat(OBS, 256, 0)
    with torch.no_grad():
        density = agent.policy(torch.from_numpy(obs))
    z = [(torch.tensor([lo, hi])[:, None] - density.loc[:, i]) / density.scale[:, i] for i, lo, hi in _edges()]
    expected = np.mean([float((torch.special.ndtr(low) + 1 - torch.special.ndtr(high)).mean()) for low, high in z])
    deviation = math.sqrt(expected * (1 - expected) / len(obs))  # two numbers of each draw: at most this
    assert abs(report._spread(agent, obs)["at_bound"] - expected) < SIGMAS * deviation
    assert "at_bound" not in report._spread(agent_of("wrap", "up"), OBS)
    assert 0 <= report._spread(agent_of("beta", "squash"), OBS)["at_bound"] <= 1


@pytest.mark.parametrize("word", ["clip", "free"])
def test_nothing_is_near_bounds_whose_distance_float32_cannot_hold(word):
    most = np.finfo(np.float32).max
    config = PolicyConfig(bounds=word, init_std=1.0)
    agent = Agent("ppo", Box(-1, 1, (3,)), Box(np.float32([-most] * 2), np.float32([most] * 2)), policy=config)
    assert "at_bound" not in report._spread(agent, OBS)


def _edges():
    """A hundredth of the width inside both bounds."""
    for i, name in enumerate(("clip", "mean")):
        low, high, _ = KINDS[name]
        yield i, low + 0.01 * (high - low), high - 0.01 * (high - low)


# ---------------------------------------------------------------------------------------------- the command line


POLICIES = {  # environment, options, words of the command
    "one dimension": ("Line", {}, []),
    "one dimension of several": ("Solid", {}, ["--dims", "2"]),
    "full": ("Plane", {"covariance": "full"}, []),
    "wrapped": ("Plane", {"covariance": "full", "periodic": (0,)}, ["--at", "2"]),
    "clipped": ("Plane", {"bounds": "clip"}, ["--dims", "1", "0"]),
    "mean": ("Plane", {"bounds": "mean"}, []),
    "lowrank": ("Solid", {"covariance": "lowrank"}, ["--dims", "0", "2"]),
    "beta": ("Plane", {"bounds": "beta"}, []),
    "product": ("Solid", {"bounds": ("beta", "squash", "clip")}, ["--dims", "2", "0"]),
    "crate": ("Crate", {}, ["--dims", "5", "1"]),
    "choice": ("Choice", {}, []),
    "dials": ("Dials", {}, []),
    "switches": ("Switches", {}, ["--at", "1"]),
}


def trained(out, env, **options):
    torch.set_num_threads(1)
    policy = {"policy": options} if options else {}
    return covary.train(
        f"{WORLDS}:{env}", steps=60, out=out, quiet=True, n_envs=2, horizon=10, epochs=1, fast=False, **policy
    )


@pytest.fixture
def plot(here, capfd, monkeypatch):
    """Runs `covary plot --policy` and returns its exit code, stderr and figure."""
    figures = []
    write = policy_plots.write

    def kept(figure, out, **how):
        figures.append(figure)
        return write(figure, out, **how)

    monkeypatch.setattr(policy_plots, "write", kept)

    def call(*words):
        figures.clear()
        capfd.readouterr()
        try:
            code = run(["plot", *map(str, words)])
        except SystemExit as stop:
            code = stop.code
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return code, out, err, figures[0] if figures else None

    return call


def panels(figure):
    """Those of observations, and those of the history by their titles."""
    history = set(policy_plots.HISTORY.values())
    below = {ax.get_title(): ax for ax in figure.axes if ax.get_title() in history}
    return [ax for ax in figure.axes if ax.get_title() and ax.get_title() not in history], below


def line_of(ax, label):
    (line,) = [line for line in ax.lines if line.get_label() == label]
    return line.get_xydata()


@pytest.mark.parametrize("name", now_and_then(POLICIES, list(POLICIES)[::4]))
def test_each_kind_of_policy(plot, here, name):
    env, options, words = POLICIES[name]
    agent = trained("r", env, **options)
    code, out, err, figure = plot("--policy", "r", "-o", "p.png", *words)
    assert code == 0, err
    assert out == "p.png\n"
    assert (here / "p.png").read_bytes().startswith(b"\x89PNG")
    above, below = panels(figure)
    assert len(above) == (int(words[1]) if "--at" in words else 3)
    assert above[0].get_title().startswith("start of an episode\nobservation ")
    obs = walk(agent, getattr(worlds, env))[0]
    with torch.no_grad():
        density = agent.policy(torch.from_numpy(obs[None]))
    box = env in ("Line", "Plane", "Solid", "Crate")
    assert set(below) == {
        policy_plots.HISTORY[each]
        for each in ("entropy", *(["at_bound"] * box), *(["covariance"] * isinstance(density, BoxNormal)))
    }
    if env == "Choice":
        heights = [bar.get_height() for bar in above[0].patches]
        assert heights == pytest.approx(density.probs[0].tolist(), abs=1e-6)
        assert [t.get_text() for t in above[0].get_xticklabels()] == ["5", "6", "7"]
        return
    if not box:
        (image,) = above[0].images
        there = np.isfinite(density.logits[0].numpy())
        shown = np.ma.filled(image.get_array(), np.nan)
        assert shown[there] == pytest.approx(density.probs[0].numpy()[there], abs=1e-6)
        assert np.isnan(shown[~there]).all()
        return
    dims = [int(word) for word in words[1:]] if "--dims" in words else [0, 1][: density.event_shape[0]]
    best = agent.decode(density.deterministic_action.numpy()).reshape(-1)[dims]
    (point,) = line_of(above[0], "deterministic action")
    assert point[: len(dims)] == pytest.approx(best, abs=1e-5)
    samples = line_of(above[0], "sampled actions")
    assert (np.abs(samples[:, : len(dims)]) <= 2).all()
    filled = [c for c in above[0].collections if isinstance(c, QuadContourSet) and c.filled]
    assert len(filled) == (len(dims) == 2)
    rings = [line for line in above[0].lines if line.get_label() in policy_plots.RINGS]
    assert len(rings) == 2 * isinstance(marginal(density, dims), BoxNormal)
    lines = [line for line in Run.open(Path("r")).lines() if "at_bound" in line]
    shown = below[policy_plots.HISTORY["at_bound"]].lines[0].get_xydata()
    assert shown.tolist() == [[line["step"], line["at_bound"]] for line in lines]


def test_a_run_from_before_these_numbers(plot):
    trained("r", "Plane", covariance="full")
    file = Path("r/metrics.jsonl")
    new = {"latent_var_min", "latent_var_max", "at_bound"}
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert all(new <= line.keys() for line in lines)
    file.write_text("".join(json.dumps({k: v for k, v in line.items() if k not in new}) + "\n" for line in lines))
    code, _, err, figure = plot("--policy", "r")
    assert code == 0, err
    assert list(panels(figure)[1]) == ["entropy (nats)"]
    covary.train(resume="r", steps=100, quiet=True)
    assert set(panels(plot("--policy", "r")[3])[1]) == set(policy_plots.HISTORY.values())


def test_the_only_step_of_an_episode_is_its_start(plot, monkeypatch):
    trained("r", "Plane")
    monkeypatch.setattr("covary.portrait.walk", lambda *args: walk(*args)[:1])
    code, _, err, figure = plot("--policy", "r")
    assert code == 0, err
    assert [ax.get_title().split("\n")[0] for ax in panels(figure)[0]] == ["start of an episode"]


def test_a_checkpoint_of_a_run_and_one_that_stands_alone(plot, here):
    agent = trained("r", "Plane")
    (*_, last) = sorted(Path("r/checkpoints").iterdir())
    code, _, err, figure = plot("--policy", last)
    assert code == 0, err
    assert panels(figure)[1], "the run it lies in has lines"
    assert (here / "policy.png").exists()
    agent.save("alone")
    code, _, err, _ = plot("--policy", "alone")
    assert code == 2
    assert "--env" in err
    code, _, err, figure = plot("--policy", "alone", "--env", f"{WORLDS}:Plane")
    assert code == 0, err
    assert panels(figure)[1] == {}


def test_without_its_environment_the_last_observations_of_training_serve(plot, here):
    shutil.copy(WORLDS, "mine.py")
    covary.train("mine.py:Plane", steps=40, out="r", quiet=True, n_envs=2, horizon=10, epochs=1)
    Path("mine.py").unlink()
    code, _, err, figure = plot("--policy", "r", "--at", "2")
    assert code == 0
    assert "last observations of training" in err
    assert "mine.py" in err
    assert [ax.get_title().partition("\n")[0] for ax in panels(figure)[0]] == [
        "environment 0 in training",
        "environment 1 in training",
    ]
    assert len(panels(plot("--policy", "r")[3])[0]) == 2
    code, _, err, _ = plot("--policy", "r", "--at", "3")
    assert code == 2
    assert "--at 2" in err
    code, _, err, _ = plot("--policy", "r", "--env", "CartPoll-v1")
    assert code == 2
    assert "CartPole-v1" in err
    code, _, err, _ = plot("--policy", "r", "--env", "CartPole-v1")
    assert code == 2
    assert "observation space" in err


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("portraits")
    trained(folder / "plane", "Plane")
    trained(folder / "line", "Line")
    trained(folder / "choice", "Choice")
    return folder


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--policy", "nothing"], ["nothing", "must exist"]),
        (["--policy", "."], ["."]),
        (["--policy", "plane", "--dims", "0", "2"], ["--dims", "0 2", "0 to 1"]),
        (["--policy", "plane", "--dims", "-1", "0"], ["--dims", "-1 0"]),
        (["--policy", "plane", "--dims", "1", "1"], ["--dims", "1 1", "different"]),
        (["--policy", "plane", "--dims", "0", "1", "0"], ["--dims", "0 1 0"]),
        (["--policy", "plane", "--dims"], ["--dims"]),
        (["--policy", "plane", "--dims", "x"], ["--dims", "x"]),
        (["--policy", "line", "--dims", "0", "1"], ["--dims 0"]),
        (["--policy", "choice", "--dims", "0", "1"], ["choices", "leave --dims out"]),
        (["--policy", "plane", "--at", "0"], ["--at", "0"]),
        (["--policy", "plane", "--at", "9"], ["--at", "9", "1 to 8"]),
        (["--policy", "plane", "--at", "6"], ["--at", "the episode has, 5", "--at 5"]),
        (["--policy", "plane", "-o", "no/such/folder/p.png"], ["writable"]),
        (["--policy", "plane", "-o", "p.xyz"], ["writable", "xyz", "fix:   -o policy.png"]),
        (["plane", "-o", "p.xyz"], ["writable", "xyz", "fix:   -o curves.png"]),
        (["plane", "--policy", "plane"], ["--policy draws one run"]),
        (["plane", "--dims", "0", "1"], ["--policy RUN"]),
        ([], ["--policy RUN"]),
    ],
    ids=lambda each: " ".join(each),
)
def test_wrong_input_gets_one_message(plot, places, monkeypatch, words, said):
    monkeypatch.chdir(places)
    code, out, err, _ = plot(*words)
    assert (code, out) == (2, "")
    for word in said:
        assert word in err
    assert not Path("policy.png").exists()


def test_help_says_so(capsys):
    assert run(["--help"]) == 0
    assert "--policy" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run(["plot", "--help"])
    out = capsys.readouterr().out
    assert all(word in out for word in ("--policy RUN", "--dims", "--at N"))


@pytest.mark.parametrize(
    ("low", "high", "kind", "text"),
    [
        (0.0, TWO_PI, "wrap", "action 0, an angle: 0 is 2π"),
        (-math.pi, math.pi, "wrap", "action 0, an angle: −π is π"),
        (0.0, math.pi / 2, "squash", "action 0, 0 to π/2"),
        (-0.4, 0.4, "clip", "action 0, −0.4 to 0.4"),
        (-INF, INF, "free", "action 0, unbounded"),
        (1.0, INF, "half", "action 0, 1 or above"),
        (-INF, 3 * math.pi / 4, "half", "action 0, 3π/4 or below"),
    ],
)
def test_the_label_of_an_axis_says_its_range(low, high, kind, text):
    from covary.portrait import Axis

    assert policy_plots._axis_label(Axis(0, kind, low, high, np.zeros(3))) == text
