"""Networks that learn from the past, by kernels that work in memory which is used again.

What is round a product costs as much as the product where PyTorch makes it: an operation for each bias, activation and
sum, and a new tensor of 256 KB for each of their outcomes. Densities and losses that no kernel knows stay autograd's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from covary.fast import descent, diagonal
from covary.fast import values as kernels
from covary.fast.dense import FILLS, OUTPUTS, READS
from covary.fast.running import show
from covary.fast.tables import (
    OTHERS,
    Unknown,
    check_apart,
    check_nobody_watches,
    check_unchanged,
    inputs_of,
    modules_of,
    normalizer_of,
    stack,
    steps_of,
)
from covary.heads import GaussianHead
from covary.nets import QValues
from covary.optim import Adam, Target
from covary.policies import Density, Policy
from covary.types import Rollout

AT_ONCE = 256  # columns, where nothing goes back: few enough for what lies between them to stay near


class Room:
    """Memory for what layers make of a batch, (rows, B). Networks share one where none needs what another left in it:
    what a core has just touched is near to it."""

    def __init__(self) -> None:
        self.kept: dict[int, NDArray[np.float32]] = {}
        self.version = 0  # what is in it is of the forward pass with this number

    def __call__(self, rows: int, batch: int) -> NDArray[np.float32]:
        """With whatever is in it."""
        kept = self.kept.get(batch)
        if kept is None or len(kept) < rows:
            kept = self.kept[batch] = np.empty((rows, batch), np.float32)
        return kept[:rows]


class Rooms:
    """Of networks that are called one after another."""

    def __init__(self) -> None:
        self.work, self.apart, self.few, self.slope = Room(), Room(), Room(), Room()


class Perceptron:
    """Linear layers with activations between them, (B, inputs) -> (B, outputs).

    Args:
        owner: in whose vector their parameters lie.
        modules: whose layers follow each other.

    Raises:
        Unknown: another kind of layer.
    """

    def __init__(self, owner: Adam | Target[Any], rooms: Rooms, *modules: nn.Module) -> None:
        self.layers, self.rows = table(owner, modules)
        self.vector, self.rooms, self.outputs = owner.vector.numpy(), rooms, int(self.layers[-1, OUTPUTS])
        self.parameters = [p for module in modules for p in module.parameters()]
        self.views: list[Tensor] = []  # of the gradient, for each parameter; none where nothing goes back
        if not isinstance(owner, Target):
            at = {id(p): view for p, view in zip(owner.parameters, owner.views, strict=True)}
            self.views, self.gradient = [at[id(p)] for p in self.parameters], owner.gradient.numpy()

    def __call__(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and self.views:
            out: Tensor = _Pass.apply(self, x, *self.parameters)
            return out
        return self.forward(x)

    def forward(self, x: Tensor) -> Tensor:
        self.rooms.work.version += 1
        out = torch.empty(len(x), self.outputs)
        work = self.rooms.work(self.rows, len(x))
        kernels.give(self.vector, self.layers, x.contiguous().numpy(), work, out.numpy())
        return out

    def backward(self, slope: Tensor) -> None:
        """Leaves the gradient where the optimizer looks for it; slope: (B, outputs), by what `forward` gave last."""
        work, room = (kept(self.rows, len(slope)) for kept in (self.rooms.work, self.rooms.slope))
        kernels.learn(self.vector, self.layers, slope.contiguous().numpy(), work, room, self.gradient)


def table(owner: Adam | Target[Any], modules: Sequence[nn.Module]) -> tuple[NDArray[np.int64], int]:
    """The layers of these modules one after another, as `covary.fast.dense` reads them, and their rows of `work`."""
    if owner.vector.dtype != torch.float32:
        raise Unknown(f"parameters of {owner.vector.dtype}")
    layers: list[tuple[int, ...]] = []
    parts = [part for module in modules for part in modules_of(module)]
    inputs = inputs_of(parts)
    top = stack(layers, parts, owner, fills=inputs)
    check_apart(layers, owner)
    return np.array(layers, np.int64), top + layers[-1][OUTPUTS]


class _Pass(torch.autograd.Function):
    """A network as one node of autograd's graph, whose gradients go to its parameters."""

    @staticmethod
    def forward(ctx: Any, network: Perceptron, x: Tensor, *parameters: Tensor) -> Tensor:
        out = network.forward(x)
        ctx.network, ctx.version = network, network.rooms.work.version
        return out

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Any:
        network: Perceptron = ctx.network
        if network.rooms.work.version != ctx.version:
            raise RuntimeError("another network was called before this one's gradient was asked for")
        network.backward(slopes[0])
        return None, None, *network.views


class FastPolicy:
    """The density of a policy, from observations that are normalised."""

    def __init__(self, policy: Policy, owner: Adam | Target[Any], rooms: Rooms) -> None:
        if type(policy) is not Policy or type(policy.head) is not GaussianHead:
            raise Unknown(OTHERS.get(type(policy.head), f"a head of type {type(policy.head).__name__}"))
        for module in (policy, policy.normalizer, policy.head):
            check_unchanged(module)
        self.head = policy.head
        self.network = Perceptron(owner, rooms, policy.torso, policy.head.out)

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
        outputs = self.network.forward(x)
        latent, seen, log_prob = torch.empty_like(noise), torch.empty_like(noise), torch.empty(len(noise))
        self.given = (outputs.numpy(), self.own.numpy(), self.per_state, noise.numpy(), *self.box)
        diagonal.draw(*self.given, latent.numpy(), seen.numpy(), log_prob.numpy())
        self.given += (latent.numpy(), seen.numpy())
        self.drawn = latent
        return seen, log_prob

    def latent(self, x: Tensor, noise: Tensor) -> Tensor:
        """(B, D) of an action each."""
        self(x, noise)
        return self.drawn

    def back(self, to_seen: Tensor, weight: float) -> None:
        """Leaves the gradient of weight * sum(log_prob) + sum(to_seen * seen) where the optimizer looks for it."""
        slope = torch.empty(self.given[0].shape)
        diagonal.back(*self.given, to_seen.contiguous().numpy(), weight, slope.numpy(), self.to_own.numpy())
        self.network.backward(slope)


class FastValues:
    """The values of actions, (B, O) and (B, A) -> (K, B)."""

    def __init__(self, critic: QValues, owner: Adam | Target[Any], rooms: Rooms) -> None:
        if type(critic) is not QValues or critic.torsos:
            raise Unknown("a torso of one's own")
        check_unchanged(critic)
        tables = [table(owner, [value]) for value in critic.values]
        self.number, self.depth, self.rows = len(tables), len(tables[0][0]), tables[0][1]
        self.same = np.concatenate([layers for layers, _ in tables])
        check_apart(self.same.tolist(), owner)
        self.apart = self.same.copy()
        for k, layers in enumerate(np.split(self.apart, self.number)):
            layers[1:, READS] += k * self.rows
            layers[:, FILLS] += k * self.rows
        self.vector, self.rooms = owner.vector.numpy(), rooms
        self.gradient = None if isinstance(owner, Target) else owner.gradient.numpy()

    def __call__(self, x: Tensor, action: Tensor) -> Tensor:
        self.rooms.work.version += 1
        out = torch.empty(self.number, len(x))
        work = self.rooms.work(self.rows, min(len(x), AT_ONCE))
        given = (x.contiguous().numpy(), action.contiguous().numpy())
        kernels.values(self.vector, self.same, self.depth, *given, work, out.numpy())
        return out

    def fit(self, x: Tensor, action: Tensor, y: Tensor, weight: Tensor) -> tuple[float, Tensor]:
        """Leaves the gradient of sum_k mean(weight (Q_k - y)^2) / 2 where the optimizer looks for it. The loss, and
        the mean size of the errors (B,)."""
        self.rooms.work.version += 1
        sizes = torch.empty(len(x))
        given = [part.contiguous().numpy() for part in (x, action, y, weight)]
        work, slope = (kept(self.rows, len(x)) for kept in (self.rooms.work, self.rooms.slope))
        rest = (work, slope, self.gradient, sizes.numpy())
        return kernels.fit(self.vector, self.same, self.depth, *given, *rest), sizes

    def least(self, x: Tensor, action: Tensor, number: int | None = None) -> tuple[Tensor, Tensor]:
        """The smallest of the first `number` values, (B,), or of all, and its slope in the action, (B, A)."""
        n, layers = len(x), (number or self.number) * self.depth
        value, to_action = torch.empty(n), torch.empty(action.shape)
        work = self.rooms.apart(self.number * self.rows, n)
        few, slope = (kept(self.rows, n) for kept in (self.rooms.few, self.rooms.slope))
        room = (work, few, slope, np.empty(n, np.int64), np.empty(n, np.int64))
        tables = (self.apart[:layers], self.same[:layers], self.depth)
        given = (x.contiguous().numpy(), action.contiguous().numpy())
        kernels.least(self.vector, *tables, *given, *room, value.numpy(), to_action.numpy())
        return value, to_action

    def smallest(self, x: Tensor, action: Tensor) -> Tensor:
        """(B,) of the K values; its gradient goes to the action alone."""
        if not torch.is_grad_enabled():
            return self(x, action).amin(0)
        value: Tensor = _Least.apply(self, x, action, self.number)
        return value

    def first(self, x: Tensor, action: Tensor) -> Tensor:
        """(B,) of the first value alone; its gradient goes to the action alone."""
        value: Tensor = _Least.apply(self, x, action, 1)
        return value


class _Least(torch.autograd.Function):
    """The slope by the action is made along with the value: nothing else is ever asked for."""

    @staticmethod
    def forward(ctx: Any, values: FastValues, x: Tensor, action: Tensor, number: int) -> Tensor:
        value, to_action = values.least(x, action.detach(), number)
        ctx.save_for_backward(to_action)
        return value

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Any:
        (to_action,) = ctx.saved_tensors
        return None, None, slopes[0][:, None] * to_action, None


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
        rooms, actor = Rooms(), learner.optimizers["actor_adam"]
        self.policy = FastPolicy(learner.policy, actor, rooms)
        self.critic = FastValues(learner.critic, learner.optimizer, rooms)
        self.target = FastValues(learner.target.network, learner.target, rooms)
        self.targets = [learner.target]
        if (of_policy := getattr(learner, "target_policy", None)) is not None:
            self.target_policy = FastPolicy(of_policy.network, of_policy, rooms)
            self.targets.append(of_policy)
        self.acting = FastPolicy(learner.policy, actor, Rooms())
        self.optimizers = list(learner.optimizers.values())
        for adam in self.optimizers:
            adam.kernel = descent.descend
        for target in self.targets:
            target.kernel = descent.follow
        try:
            self.draws: Draws | None = Draws(self.policy)
            own = {id(p): view for p, view in zip(actor.parameters, actor.views, strict=True)}
            self.draws.to_own = own.get(id(getattr(learner.policy.head, "log_std", None)), self.draws.to_own)
        except Unknown:
            self.draws = None
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
