"""Random cases: finite input gives finite results at any scale, and what is invalid is told, never a crash inside."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from covary.distributions import Beta, BoxNormal, Categorical, Choices, Geometry
from covary.envs.adapter import Adapter
from covary.envs.faults import EnvironmentFault
from covary.envs.sources import resolve
from covary.envs.spaces import Decoder, Encoder
from covary.envs.vectors import build
from covary.errors import UsageError

TRIAL = Path(__file__).parent.parent / "bench" / "trials" / "cases.py"
some = settings(max_examples=200, derandomize=True, deadline=None, database=None)


def tells(error, words=""):
    """A message, and not the bare word of a crash."""
    assert len(str(error)) > 20
    assert words in str(error)


@pytest.fixture(scope="module")
def cases():
    spec = importlib.util.spec_from_file_location("trial_cases", TRIAL)
    sys.modules["trial_cases"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# -------------------------------------------------------------------------------------------- random densities


def test_densities_stay_finite(cases):
    """6,000 cases, of which the bench has as many as one likes."""
    rows = list(cases.run(48 * 130, 0))
    assert len(rows) == 48
    assert sum(row["cases"] for row in rows) >= 5900
    for row in rows:
        assert row["non_finite"] == {}, row
        assert row["tracebacks"] == {}, row
        if row["size"] == "usual" and row["refused"] == 0:
            assert row["beyond"] == 0, row


@pytest.mark.parametrize("broken", ["nan", "outside"])
def test_the_trial_sees_what_is_not_finite(cases, monkeypatch, broken):
    rng = np.random.default_rng(0)
    case = cases.case(rng, "auto", "usual", "diagonal", 50)
    assert not +cases.faults(case)
    real = BoxNormal.to_action
    change = {"nan": lambda x: x * torch.where(x == x.max(), torch.nan, 1.0), "outside": lambda x: x + 1e9}[broken]
    monkeypatch.setattr(BoxNormal, "to_action", lambda self, latent: change(real(self, latent)))
    found = +cases.faults(case)
    assert found["beyond" if broken == "nan" else "outside"] > 0  # float64 gives no number either


def test_a_large_clipped_dimension_beside_an_angle():
    """Its variance is beyond float32, its deviation is not; the nearest image was sought at inf / inf."""
    geometry = Geometry.box([0.0, -1e23], [1.0, 1e23], bounds="clip", periodic=(0,))
    factor = torch.tensor([[0.5, 0.0], [1e21, 5e21]])
    density = BoxNormal(torch.tensor([[3.0, 2e22]]), factor=factor, geometry=geometry)
    action = torch.tensor([[0.4, 3e22]])
    exact = BoxNormal(density.loc.double(), factor=factor.double(), geometry=geometry).log_prob(action.double())
    assert density.log_prob(action).item() == pytest.approx(exact.item(), rel=1e-5)


def mostly(good, bad):
    return st.integers(0, 7).flatmap(lambda k: bad if k == 0 else good)


def test_the_entropy_of_a_large_clipped_dimension():
    """The square of its deviation is beyond float32 as well."""
    geometry = Geometry.box([0.0, -1e23], [1.0, 1e23], bounds=("auto", "clip"))
    factor, loc = torch.tensor([[0.5, 0.0], [3e21, 5e21]]), torch.tensor([[0.0, 9e22]])
    density = BoxNormal(loc, factor=factor, geometry=geometry)
    exact = BoxNormal(loc.double(), factor=factor.double(), geometry=geometry)
    assert density.entropy().item() == pytest.approx(exact.entropy().item(), rel=1e-5)
    assert density.scale.tolist() == [pytest.approx([0.5, 34**0.5 * 1e21])]


numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)
anything = st.floats(width=32)


@some
@given(st.data())
def test_any_box_gives_a_density_or_a_reason(data):
    """What a user writes as bounds, periodic and bounds="...": a finite density, or a ValueError that says why."""
    d = data.draw(mostly(st.integers(1, 3), st.just(0)))
    pairs = mostly(st.tuples(*[st.floats(allow_nan=False)] * 2).map(sorted), st.tuples(st.floats(), st.floats()))
    low, high = np.reshape(data.draw(st.lists(pairs, min_size=d, max_size=d)), (d, 2)).T.tolist()
    wrong = st.sampled_from(["squash", "mean", "wrong", 3, ["clip"], [], None])
    words = data.draw(mostly(st.sampled_from(["auto", "clip", "free"]), wrong))
    periodic = data.draw(mostly(st.just(()), st.sampled_from([(0,), (1, 2), (-1,), (7,), 0, ("a",), (0.5,)])))
    try:
        geometry = Geometry.box(low, high, bounds=words, periodic=periodic)
    except ValueError as error:
        tells(error)
        return
    density = BoxNormal(torch.zeros(2, d), torch.ones(2, d), geometry=geometry)
    with torch.no_grad():
        action, log_prob = density.sample_and_log_prob(noise=torch.tensor([[0.5] * d, [-2.0] * d]))
    assert log_prob.isfinite().all()
    assert action.isfinite().all()


shapes = st.sampled_from([(), (1,), (2,), (3,), (1, 2), (2, 2), (3, 2), (4, 2), (3, 1), (3, 3), (0, 2), (2, 3, 2)])
dtypes = st.sampled_from([torch.float32, torch.float64, torch.int64, torch.bool])


@st.composite
def tensors(draw):
    x = draw(arrays.arrays(np.float32, draw(shapes), elements=anything))
    with np.errstate(invalid="ignore"):
        return torch.as_tensor(x).nan_to_num(0.0).to(draw(dtypes)) if draw(st.booleans()) else torch.as_tensor(x)


def floats(*shape, low=-100.0, high=100.0):
    """Tensors of this shape, which are mostly right."""
    inside = st.floats(low, high, width=32)
    return mostly(arrays.arrays(np.float32, shape, elements=inside).map(torch.as_tensor), tensors())


@st.composite
def spreads(draw):
    """A spread of three densities of two dimensions, and its name; mostly right."""
    name = draw(st.sampled_from(["scale", "scale_tril", "covariance_matrix", "factor", "residual"]))
    std = draw(floats(3, 2, low=2.0**-12, high=1024.0))
    if std.shape != (3, 2) or name in ("scale", "residual"):
        return name, std
    factor = torch.diag_embed(std) + torch.tensor([[0.0, 0.0], [draw(st.sampled_from([0.0, 0.5])), 0.0]])
    return name, factor @ factor.mT if name == "covariance_matrix" else factor


@some
@given(floats(3, 2), spreads(), floats(3, 2, low=0.0, high=1.0))
def test_any_parameters_are_a_density_or_a_reason(loc, named, action):
    name, spread = named
    geometry = Geometry.box([0.0, -1.0], [1.0, np.inf])
    try:
        loading = {"loading": torch.ones(3, 2, 1)} if name == "residual" else {}
        density = BoxNormal(loc, **{name: spread}, **loading, geometry=geometry)
        log_prob = density.log_prob(action)
    except ValueError as error:
        tells(error)
        return
    assert log_prob.shape == torch.broadcast_shapes(density.batch_shape, action.shape[:-1])
    assert not log_prob.isnan().any()


def test_parameters_of_every_kind_are_told():
    """What random tensors seldom are."""
    one, two = torch.ones(3, 2), torch.zeros(3, 2)
    density = BoxNormal(two, one)
    for make, says in (
        (lambda: BoxNormal(two.long(), one), "loc holds floating-point"),
        (lambda: BoxNormal(two, one.bool()), "scale holds floating-point"),
        (lambda: BoxNormal(two, torch.ones(4, 2)), "broadcast"),
        (lambda: density.log_prob(two.long()), "An action is floating-point"),
        (lambda: density.log_prob_latent(torch.zeros(3, 1)), "latent is"),
        (lambda: density.log_prob_latent(torch.zeros(3, 3)), "latent is"),
        (lambda: BoxNormal(two, -one.requires_grad_()), "must be positive"),
        (lambda: Categorical(torch.tensor(1.0)), "logits are"),
        (lambda: Categorical(torch.zeros(3, 4, dtype=torch.int64)), "logits are"),
        (lambda: Geometry.box([], []), "1 or more"),
        (lambda: Geometry.box([0.0], [1.0], periodic=0), "sequence of dimensions"),
        (lambda: Geometry.box([0.0], [1.0], bounds=([],)), "bounds is one of"),
        (lambda: Geometry.box([-1e300], [np.inf]), "number of float32"),
    ):
        with pytest.raises(ValueError, match=says):
            make()


@some
@given(
    floats(3, 4, low=-(2.0**100), high=2.0**100),
    mostly(arrays.arrays(np.int64, 3, elements=st.integers(0, 3)), tensors()),
)
def test_any_logits_are_choices_or_a_reason(logits, choice):
    try:
        density = Categorical(logits)
        log_prob = density.log_prob(torch.as_tensor(choice))
    except ValueError as error:
        tells(error)
        return
    assert not log_prob.isnan().any()
    assert (log_prob <= 0).all()
    assert density.entropy().isfinite().all()


@some
@given(
    floats(3, 2, low=1.0, high=2.0**30),
    floats(3, 2, low=1.0, high=2.0**30),
    floats(3, 2, low=0.0, high=1.0),
    st.floats(-8, 8),
)
def test_any_shapes_are_a_beta_or_a_reason(alpha, beta, action, noise):
    try:
        density = Beta(alpha, beta)
        log_prob = density.log_prob(action)
    except ValueError as error:
        tells(error)
        return
    assert not log_prob.isnan().any()
    drawn = density.draw(noise=torch.full_like(density.noise(), noise))
    assert all(x.isfinite().all() for x in drawn)
    assert density.entropy().isfinite().all()


@some
@given(
    floats(3, 2, 4, low=-(2.0**100), high=2.0**100),
    mostly(arrays.arrays(np.int64, (3, 2), elements=st.integers(0, 3)), tensors()),
)
def test_any_logits_are_several_choices_or_a_reason(logits, choice):
    try:
        density = Choices(logits)
        log_prob = density.log_prob(torch.as_tensor(choice))
    except ValueError as error:
        tells(error)
        return
    assert not log_prob.isnan().any()
    assert (log_prob <= 0).all()
    assert density.entropy().isfinite().all()


# ------------------------------------------------------------------------------------- observations and actions

values = st.sampled_from(
    [0.0, -0.0, 1e-45, 1e38, -1e38, 3.5e38, 1e300, np.nan, np.inf, 1, True, None, "a", 1j, 10**40, [], [1.0], b"x", {}]
)


def nested(depth):
    return values if depth == 0 else st.lists(nested(depth - 1), max_size=3)


anything_at_all = st.one_of(
    values,
    nested(1),
    nested(2),
    arrays.arrays(st.sampled_from([np.float16, np.float64, np.int8, np.bool_, np.complex64]), shapes),
    arrays.arrays(object, shapes, elements=values),
)


@some
@given(st.data(), st.sampled_from([Box(-1, 1, (2,), np.float32), Box(0, 255, (3, 1), np.uint8), Discrete(3)]))
def test_an_encoder_gives_vectors_or_a_reason(data, space):
    shape = st.integers(0, 3).map(lambda n: (n, *space.shape))
    right = st.one_of(
        arrays.arrays(np.int16, shape, elements=st.integers(0, 2)),
        arrays.arrays(np.float32, shape, elements=st.sampled_from([0.0, 1.0, 2.0] if not space.shape else [1e38, 0.1])),
    )
    obs = data.draw(mostly(right, anything_at_all))
    obs = obs.tolist() if isinstance(obs, np.ndarray) and data.draw(st.booleans()) else obs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        encode = Encoder(space)
        try:
            x = encode(obs)
        except UsageError as error:
            tells(error, "given:")
            return
    assert x.shape == (len(obs), encode.size)
    assert x.dtype == np.float32
    if isinstance(space, Discrete):
        assert (x.sum(1) == 1).all()
        assert (x.argmax(1) == np.asarray(obs, np.float64)).all()
    else:
        with np.errstate(over="ignore"):
            wanted = np.asarray(obs, np.float32).reshape(x.shape)
        assert ((x == wanted) | np.isnan(wanted)).all()


@some
@given(st.data())
def test_decoded_actions_lie_in_their_space(data):
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    low, high = sorted(data.draw(st.lists(numbers.filter(bool), min_size=2, max_size=2, unique=True)))
    space = Box(dtype(low), dtype(high), (2,), dtype)
    action = data.draw(arrays.arrays(np.float32, (4, 2), elements=st.floats(width=32, allow_nan=False)))
    got = Decoder(space)(action)
    assert got.shape == (4, 2)
    assert all(space.contains(one) for one in got)
    inside = (action >= low) & (action <= high)
    assert (got[inside] == action[inside]).all()


class Says(gym.Env):
    """Returns what it was told to."""

    observation_space = Box(-1, 1, (2,), np.float32)
    action_space = Box(-1, 1, (1,), np.float32)
    told = (np.zeros(2, np.float32), 0.0, False, False, {})

    def reset(self, *, seed=None, options=None):
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return self.told


good_obs = st.lists(st.sampled_from([0.0, -0.0, 1e-45, 1e38, 1.0]), min_size=2, max_size=2)
step_values = st.tuples(
    mostly(good_obs, anything_at_all),
    mostly(numbers, values),
    mostly(st.booleans(), values),
    mostly(st.booleans(), values),
    mostly(st.just({}), values),
)


@some
@given(mostly(step_values, anything_at_all))
def test_a_step_is_a_transition_or_a_reason(told):
    """Whatever an environment returns: finite numbers that are its own, or a message that names it."""
    venv = build(resolve(Says), 1, "sync")
    adapter = Adapter(venv, lambda i, k: k, 0.5)
    adapter.reset()
    venv.envs[0].unwrapped.told = told
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            step = adapter.step(np.zeros((1, 1), np.float32))
        except EnvironmentFault as error:
            tells(error, "environment 0")
            return
    obs, reward, terminated, truncated, _ = told
    assert step.next_obs.tolist() == np.asarray(obs, np.float32).reshape(1, 2).tolist()
    assert step.reward == np.float32(reward)
    assert step.discount == (0.0 if terminated else 0.5)
    assert step.lam == (0.0 if terminated or truncated else 1.0)
