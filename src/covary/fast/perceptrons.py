"""Large perceptrons, each as one node of autograd's graph, in memory that is used again.

PyTorch's products are as fast as a core can be; what they are surrounded by is not: a new tensor of 256 KB for every
layer's output and slope costs more to map into memory than to compute. Densities and losses stay autograd's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from covary.fast import descent, diagonal
from covary.fast.running import show
from covary.fast.tables import (
    OTHERS,
    Unknown,
    check_nobody_watches,
    check_plain,
    check_unchanged,
    modules_of,
    normalizer_of,
    steps_of,
)
from covary.heads import GaussianHead
from covary.nets import QValues
from covary.policies import Density, Policy
from covary.types import Rollout

NARROW = 16  # columns of a product, up to which its transpose is several times as fast


class Memory:
    """Tensors for the hidden layers of a batch, which are used again. Networks share one where none needs what another
    left in it: what a core has just touched is near to it."""

    def __init__(self) -> None:
        self.kept: dict[tuple[int, int], Tensor] = {}
        self.version = 0  # what is in it is of the forward pass with this number

    def __call__(self, layer: int, rows: int, width: int) -> Tensor:
        """(rows, width), with whatever is in it."""
        kept = self.kept.get((layer, width))
        if kept is None or len(kept) < rows:
            kept = self.kept[layer, width] = torch.empty(rows, width)
        return kept if len(kept) == rows else kept[:rows]


class Perceptron:
    """Linear layers with ReLU or tanh between them.

    Args:
        modules: whose layers follow each other; their parameters are read where they are.

    Raises:
        Unknown: another kind of layer.

    Attributes:
        memory: of what the layers give.
        slopes: of the loss's slopes in it, and of the rows that they are wanted for.
    """

    def __init__(self, *modules: nn.Module) -> None:
        self.layers: list[tuple[nn.Linear, type[nn.Module] | None]] = []
        for part in (part for module in modules for part in modules_of(module) if type(part) is not nn.Identity):
            check_unchanged(part)
            if type(part) is nn.Linear and part.bias is not None and part.weight.dtype == torch.float32:
                self.layers.append((part, None))
            elif type(part) in (nn.ReLU, nn.Tanh) and self.layers and self.layers[-1][1] is None:
                self.layers[-1] = self.layers[-1][0], type(part)
            else:
                raise Unknown(f"a layer of {type(part).__name__}")
        if not self.layers or self.layers[-1][1] is not None:
            raise Unknown("a network that does not end with a linear layer")
        self.parameters = [p for layer, _ in self.layers for p in (layer.weight, layer.bias)]
        for parameter in self.parameters:
            check_plain(parameter)
        learns = {p.requires_grad for p in self.parameters}
        if len(learns) > 1 or len(set(map(id, self.parameters))) < len(self.parameters):
            raise Unknown("a parameter that is frozen, or that two layers share")
        self.gradients = [torch.zeros_like(p) for p in self.parameters] if learns == {True} else []
        self.memory, self.slopes = Memory(), Memory()
        self.made: list[Tensor] = []  # what each layer but the last gives, (B, width)

    def __call__(self, x: Tensor) -> Tensor:
        """(B, inputs) -> (B, outputs). Where x has a gradient, that is all that goes back; else the parameters'."""
        if torch.is_grad_enabled() and x.requires_grad:
            out: Tensor = _Pass.apply(self, x)
            return out
        if torch.is_grad_enabled() and self.gradients:
            out = _Pass.apply(self, x, *self.parameters)
            return out
        return self.forward(x)

    def forward(self, x: Tensor) -> Tensor:
        self.memory.version += 1
        self.made = []
        for k, (layer, activation) in enumerate(self.layers[:-1]):
            out = self.memory(k, len(x), layer.out_features)
            torch.addmm(layer.bias.detach(), x, layer.weight.detach().mT, out=out)
            x = out.clamp_min_(0) if activation is nn.ReLU else out.tanh_() if activation is nn.Tanh else out
            self.made.append(x)
        last = self.layers[-1][0]
        return torch.addmm(last.bias.detach()[:, None], last.weight.detach(), x.mT).mT

    def check(self, version: int) -> None:
        """Raises RuntimeError where what the forward pass of this number made is gone."""
        if self.memory.version != version:
            raise RuntimeError("this network was called again before its gradient was asked for")

    def backward(self, x: Tensor, slope: Tensor, to_input: bool) -> tuple[Tensor | None, list[Tensor]]:
        """The slope in x or, where that is not asked for, in the parameters."""
        for k in reversed(range(len(self.layers))):
            before = self.made[k - 1] if k else x
            if not to_input:
                _product(slope.mT, before, self.gradients[2 * k])
                torch.sum(slope, 0, out=self.gradients[2 * k + 1])
            if k:
                slope = self._through(k, slope, before)
        if not to_input:
            return None, self.gradients
        return _by_weight(slope, self.layers[0][0]), []

    def to_input(self, slope: Tensor, rows: Tensor) -> Tensor:
        """The slope in the input of some rows (R,) of the batch, from that of their outputs (R, outputs). -> (R, I)"""
        for k in reversed(range(1, len(self.layers))):
            made = self.made[k - 1]
            before = torch.index_select(made, 0, rows, out=self.slopes(-k, len(rows), made.shape[1]))
            slope = self._through(k, slope, before)
        return _by_weight(slope, self.layers[0][0])

    def _through(self, k: int, slope: Tensor, before: Tensor) -> Tensor:
        """The slope behind layer k and before the activation under it, which gave `before`."""
        layer, activation = self.layers[k][0], self.layers[k - 1][1]
        slope = torch.mm(slope, layer.weight.detach(), out=self.slopes(k, len(slope), layer.in_features))
        if activation is nn.ReLU:
            torch.ops.aten.threshold_backward.grad_input(slope, before, 0, grad_input=slope)
        elif activation is nn.Tanh:
            torch.ops.aten.tanh_backward.grad_input(slope, before, grad_input=slope)
        return slope


def _by_weight(slope: Tensor, layer: nn.Linear) -> Tensor:
    """(B, outputs) -> (B, inputs)"""
    weight = layer.weight.detach()
    return torch.mm(weight.mT, slope.mT).mT if weight.shape[1] <= NARROW else slope @ weight


def _product(a: Tensor, b: Tensor, out: Tensor) -> None:
    """a b into out."""
    if b.shape[1] <= NARROW < a.shape[0]:
        out.copy_((b.mT @ a.mT).mT)
    else:
        torch.mm(a, b, out=out)


class _Pass(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, network: Perceptron, x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.network, ctx.to_input = network, not parameters
        out = network.forward(x)
        ctx.version = network.memory.version
        ctx.save_for_backward(x)
        return out

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Any:
        network: Perceptron = ctx.network
        network.check(ctx.version)
        (x,) = ctx.saved_tensors
        to_x, gradients = network.backward(x, slopes[0], ctx.to_input)
        return None, to_x, *gradients


class FastPolicy:
    """The density of a policy, from observations that are normalised."""

    def __init__(self, policy: Policy) -> None:
        if type(policy) is not Policy or type(policy.head) is not GaussianHead:
            raise Unknown(OTHERS.get(type(policy.head), f"a head of type {type(policy.head).__name__}"))
        for module in (policy, policy.normalizer, policy.head):
            check_unchanged(module)
        self.head = policy.head
        self.network = Perceptron(policy.torso, policy.head.out)

    def density(self, x: Tensor) -> Density:
        return self.head.made_of(self.network(x))


class Draws:
    """Actions of a diagonal Gaussian, with the way back through them; for a policy in its own memory.

    Raises:
        Unknown: a density that the kernels do not know.
    """

    def __init__(self, policy: FastPolicy) -> None:
        head, network = policy.head, policy.network
        kinds = head.geometry.kinds
        if head.full or head.rank or head.kept or head.matrix is not None or {"wrap", "clip"} & set(kinds):
            raise Unknown("a density of another kind")
        self.network, self.per_state = network, int(head.per_state)
        codes = {"free": diagonal.FREE, "squash": diagonal.SQUASH, "half": diagonal.HALF}
        width = torch.tensor(head.geometry.high) - torch.tensor(head.geometry.low)
        parts = (head.offset, head.gain, head.base_log_std, head.origin, head.unit, width.float().log())
        self.box = (*(part.numpy() for part in parts), np.array([codes[kind] for kind in kinds]))
        self.own = torch.zeros(len(kinds)) if head.fixed or head.per_state else head.log_std.detach()
        self.to_own = torch.zeros_like(self.own)
        self.given: tuple[Any, ...] = ()

    def __call__(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinates (B, D) and log-probabilities (B,) of an action each. x: (B, O), noise: (B, D)."""
        outputs = self.network.forward(x).contiguous()
        latent, seen, log_prob = torch.empty_like(noise), torch.empty_like(noise), torch.empty(len(noise))
        self.given = (outputs.numpy(), self.own.numpy(), self.per_state, noise.numpy(), *self.box)
        diagonal.draw(*self.given, latent.numpy(), seen.numpy(), log_prob.numpy())
        self.given += (latent.numpy(), seen.numpy())
        self.x, self.drawn = x, latent
        return seen, log_prob

    def latent(self, x: Tensor, noise: Tensor) -> Tensor:
        """(B, D) of an action each."""
        self(x, noise)
        return self.drawn

    def back(self, to_seen: Tensor, weight: float) -> None:
        """Leaves the gradient of weight * sum(log_prob) + sum(to_seen * seen) where the optimizer looks for it."""
        slope = torch.empty(self.given[0].shape)
        diagonal.back(*self.given, to_seen.contiguous().numpy(), weight, slope.numpy(), self.to_own.numpy())
        self.network.backward(self.x, slope, False)


class FastValues:
    """The values of actions, (B, O) and (B, A) -> (K, B)."""

    def __init__(self, critic: QValues) -> None:
        if type(critic) is not QValues or critic.torsos:
            raise Unknown("a torso of one's own")
        check_unchanged(critic)
        self.networks = [Perceptron(value) for value in critic.values]

    def __call__(self, x: Tensor, action: Tensor) -> Tensor:
        inputs = torch.cat([x, action], -1)
        return torch.cat([network(inputs) for network in self.networks], -1).mT

    def fit(self, x: Tensor, action: Tensor, y: Tensor, weight: Tensor) -> tuple[float, Tensor]:
        """Leaves the gradient of sum_k mean(weight (Q_k - y)^2) / 2 where the optimizer looks for it. The loss, and
        the mean size of the errors (B,)."""
        inputs, target, share = torch.cat([x, action], -1), y[:, None], (weight / len(y))[:, None]
        loss, sizes = 0.0, torch.zeros_like(target)
        for network in self.networks:  # forwards and back, while what is between is near
            error = network.forward(inputs) - target
            slope = error * share
            network.backward(inputs, slope, False)
            loss += 0.5 * float(torch.dot(slope.squeeze(-1), error.squeeze(-1)))
            sizes += error.abs()
        return loss, sizes.squeeze(-1) / len(self.networks)

    def least(self, x: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """The smallest of the K values, (B,), and its slope in the action, (B, A)."""
        inputs = torch.cat([x, action], -1)
        value, which = torch.cat([network.forward(inputs) for network in self.networks], -1).min(-1)
        return value, self._slopes(which, torch.ones(len(x), 1), action.shape[1])

    def _slopes(self, which: Tensor, slope: Tensor, width: int) -> Tensor:
        to_action = torch.empty(len(slope), width)
        for k, network in enumerate(self.networks):
            rows = (which == k).nonzero().squeeze(-1)
            if len(rows):
                to_action[rows] = network.to_input(slope[rows], rows)[:, -width:]
        return to_action

    def smallest(self, x: Tensor, action: Tensor) -> Tensor:
        """(B,) of the K values; its gradient goes to the action alone."""
        if not torch.is_grad_enabled():
            return self(x, action).amin(0)
        value: Tensor = _Smallest.apply(self, x, action)
        return value

    def first(self, x: Tensor, action: Tensor) -> Tensor:
        """(B,) of the K values; its gradient goes to the action alone."""
        return self.networks[0](torch.cat([x, action], -1)).squeeze(-1)


class _Smallest(torch.autograd.Function):
    """Each row goes back through the one network whose value it is."""

    @staticmethod
    def forward(ctx: Any, values: FastValues, x: Tensor, action: Tensor) -> Tensor:
        all_of_them = values(x, action)
        least, ctx.which = all_of_them.min(0)
        ctx.values, ctx.width = values, action.shape[1]
        ctx.versions = [network.memory.version for network in values.networks]
        return least

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Any:
        for network, version in zip(ctx.values.networks, ctx.versions, strict=True):
            network.check(version)
        return None, None, ctx.values._slopes(ctx.which, slopes[0][:, None], ctx.width)


class FastNetworks:
    """What a learner from the past computes with, in place of its modules, whose parameters these read and whose
    gradients they give.

    Raises:
        Unknown: something that is not done here.
    """

    gradient = None  # of kernels of its own: there are none

    def __init__(self, learner: Any) -> None:
        check_nobody_watches()
        if learner.device.type != "cpu":
            raise Unknown(f"on {learner.device.type}")
        self.normalizer = learner.policy.normalizer
        kept, _ = normalizer_of(self.normalizer, learner.critic.observation)
        self.policy, self.critic = FastPolicy(learner.policy), FastValues(learner.critic)
        self.target = FastValues(learner.target.network)
        self.targets = [learner.target]
        if (of_policy := getattr(learner, "target_policy", None)) is not None:
            self.target_policy = FastPolicy(of_policy.network)
            self.targets.append(of_policy)
        self.optimizers = list(learner.optimizers.values())
        rooms = {id(p): view for adam in self.optimizers for p, view in zip(adam.parameters, adam.views, strict=True)}
        slopes = Memory()
        for network in (self.policy.network, *self.critic.networks):
            network.gradients = [rooms[id(p)] for p in network.parameters]
            network.slopes = slopes
        for network in self.target.networks:  # which nothing goes back through
            network.memory = self.critic.networks[0].memory
        for adam in self.optimizers:
            adam.kernel = descent.descend
        for target in self.targets:
            target.kernel = descent.follow
        try:
            self.draws: Draws | None = Draws(self.policy)
            self.draws.to_own = rooms.get(id(getattr(learner.policy.head, "log_std", None)), self.draws.to_own)
        except Unknown:
            self.draws = None
        self.acting = FastPolicy(learner.policy)  # in memory of its own, for another batch
        self.draws_to_act = None if self.draws is None else Draws(self.acting)
        self.past, gamma = learner.past, learner.config.gamma if learner.config.scale_rewards else -1.0
        scale = learner.past.reward_scale
        self.statistics = (learner.config.n_envs, gamma, scale.running, scale.carry, *kept)
        self.past.kernel = self.show

    def show(self, rollout: Rollout) -> None:
        """Shows a rollout to the normaliser and to the scale of rewards."""
        steps = steps_of(rollout)
        show(rollout.obs.numpy().reshape(steps.shape[1], -1), steps, *self.statistics)

    def soft_target(self, batch: Any, alpha: float) -> Tensor:
        """`covary.algorithms.sac.critic_target`."""
        if self.draws is None:
            density = self.policy.density(batch.next_x)
            latent = density.sample_latent(noise=batch.next_noise)
            action, log_prob = self.policy.head.coordinates(latent), density.log_prob_latent(latent)
        else:
            action, log_prob = self.draws(batch.next_x, batch.next_noise)
        return batch.reward + batch.discount * (self.target.smallest(batch.next_x, action) - alpha * log_prob)

    def detach(self) -> None:
        """Back to the optimizers' own ways."""
        for adam in self.optimizers:
            adam.kernel = None
        for target in self.targets:
            target.kernel = None
        self.past.kernel = None

    @torch.no_grad()
    def act(self, obs: NDArray[np.float32], noise: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[Any]]:
        """As `covary.agent.Agent.sample`."""
        x, drawn = self.normalizer(torch.from_numpy(obs)), torch.from_numpy(noise)
        if self.draws_to_act is None:
            density = self.acting.density(x)
            latent = density.sample_latent(noise=drawn)
        else:
            latent = self.draws_to_act.latent(x, drawn)
        return latent.numpy(), self.acting.head.geometry.to_action(latent).numpy()
