"""The doctor in code: around a piece of training, and in a test suite."""

from __future__ import annotations

import copy
import gc
import weakref

import numpy as np
import pytest
import torch
from torch import nn

from covary import doctor


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))


def fit(net, cut=lambda y: y):
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)

    def step():
        x = torch.ones(4, 2)
        loss = (cut(net(x)).squeeze(1) - torch.arange(4.0)).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def detached(y):
    return y.detach().requires_grad_()


def test_watch_finds_the_line_and_uses_the_given_names(capsys):
    net = network()
    step = fit(net, detached)
    with doctor.watch(value_net=net) as checkup:
        for _ in range(3):
            step()
    first = checkup.findings[0]
    assert first.code == "graph-cut"
    assert first.site.source == "return y.detach().requires_grad_()"
    assert first.parameters == ["value_net.0.weight", "value_net.0.bias", "value_net.2.weight", "value_net.2.bias"]
    assert not checkup.healthy
    checkup.report()
    assert "value_net.0.weight" in capsys.readouterr().out
    assert checkup.troubles == []


def test_watch_finds_nothing_in_a_healthy_step():
    net = network()
    step = fit(net)
    with doctor.watch(net=net) as checkup:
        for _ in range(3):
            step()
    assert checkup.healthy
    assert [finding for finding in checkup.findings if finding.severity != "note"] == []
    assert checkup.troubles == []


def test_everything_is_put_back():
    owners = [torch.Tensor, torch.autograd, torch.optim.Optimizer, nn.Module, np, copy, torch, torch.no_grad]
    before = [dict(vars(owner)) for owner in owners]
    with doctor.watch():
        fit(network())()
        assert torch.autograd.backward is not before[1]["backward"]
    for owner, was in zip(owners, before, strict=True):
        now = dict(vars(owner))
        assert now.keys() == was.keys()
        assert [name for name in was if now[name] is not was[name]] == []
    assert torch._C._len_torch_function_stack() == 0


def test_an_exception_passes_through_unchanged():
    checkup = doctor.watch()

    def watched():
        with checkup:
            fit(network())()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        watched()
    assert isinstance(checkup.case.raised, ZeroDivisionError)
    assert torch._C._len_torch_function_stack() == 0


def test_assert_learns_passes_what_learns():
    net = network()
    doctor.assert_learns(fit(net), net)
    doctor.assert_learns(fit(net), {"net": net})


def test_assert_learns_reads_like_the_report():
    net = network()
    with pytest.raises(AssertionError, match=r"test_checkup\.py:\d+ in detached"):
        doctor.assert_learns(fit(net, detached), {"critic": net})


def test_assert_learns_names_a_module_that_no_step_moves():
    net, other = network(), network()
    with pytest.raises(AssertionError, match="other did not change in 3 steps"):
        doctor.assert_learns(fit(net), {"net": net, "other": other})


def test_values_keep_their_types_and_promotions():
    """What leaves PyTorch under watch behaves as it would have: same values, same dtypes, same kinds."""
    with doctor.watch():
        x = torch.tensor([1.5, 2.5], requires_grad=True)
        number, array = x.sum().item(), x.detach().numpy()
        assert isinstance(number, float)
        assert isinstance(array, np.ndarray)
        assert (np.ones(3, np.float32) * number).dtype == np.float32
        assert (array * 2.0).dtype == np.float32
        assert np.array([number, number]).dtype == np.float64
        assert np.array(list(array)).dtype == np.float32
        assert np.stack([array, array]).shape == (2, 2)
        assert repr(number) == "4.0"
        assert repr(array) == "array([1.5, 2.5], dtype=float32)"
        assert torch.tensor([number, number]).dtype == torch.float32
        assert type(copy.deepcopy(number) + 1) in (float, type(number))
        assert isinstance(x.argmax().item(), int)
        assert [10, 20][x.argmax().item()] == 20
        assert round(number, 1) == 4.0
        assert max(array[0], 2.0) == 2.0
        assert (array > 2).tolist() == [False, True]
    assert (np.asarray(array) + 1).dtype == np.float32


def test_memory_is_bounded():
    """Nothing that the doctor keeps grows once the window is over."""
    net = network()
    step = fit(net)
    with doctor.watch(net=net) as checkup:
        for _ in range(600):
            step()
        case = checkup.case
        assert not case.trail.open, "the window is over"
        sizes = (len(case.events), len(case.backwards), len(case.steps), len(case.trail.params))
        for _ in range(300):
            step()
        assert (len(case.events), len(case.backwards), len(case.steps), len(case.trail.params)) == sizes
        assert case.counts["updates"] == 900


def test_findings_may_be_read_while_it_watches():
    net = network()
    step = fit(net, detached)
    with doctor.watch(net=net) as checkup:
        assert checkup.findings == [] or checkup.findings[0].code == "nothing-optimized"
        for _ in range(5):
            step()
        assert [one.code for one in checkup.findings] == ["graph-cut"]
    assert [one.code for one in checkup.findings] == ["graph-cut"]
    assert not checkup.healthy


def test_a_checkup_that_is_over_is_let_go():
    fit(network())()  # the first step imports modules that keep what they find in `builtins`

    def watched():
        with doctor.watch() as checkup:
            fit(network())()
        return weakref.ref(checkup._watch)

    watch = watched()
    gc.collect()
    assert watch() is None


@pytest.mark.parametrize(
    ("modules", "steps", "error", "message"),
    [
        (lambda net: {"actor": net.parameters()}, 3, TypeError, "actor is a generator"),
        (lambda net: nn.ReLU(), 3, ValueError, "module has no parameters"),
        (lambda net: net, 0, ValueError, "at least 1 step"),
    ],
)
def test_assert_learns_refuses_what_cannot_learn(modules, steps, error, message):
    net = network()
    with pytest.raises(error, match=message):
        doctor.assert_learns(fit(net), modules(net), steps)
