"""An agent: a policy, the learner that moves it, and the spaces it was made for."""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import covary
from covary import algorithms, description, runs
from covary.envs import spaces
from covary.errors import UsageError, check_choice, check_sizes, check_switches
from covary.heads import GaussianHead, PolicyConfig
from covary.nets import Activation, Init, QValues, Value, make_sparse, mlp, threads_of_torch, width_of
from covary.policies import make_policy
from covary.types import Learner

if TYPE_CHECKING:
    from covary.fast.path import FastPath

LONGEST = 1_000_000  # correlation_time, in steps


@dataclass(frozen=True)
class CriticConfig:
    """How the value network is made."""

    hidden: tuple[int, ...] = (64, 64)
    """widths of the hidden layers"""
    activation: Activation = "tanh"
    """of the hidden layers"""
    layer_norm: bool = False
    """whether each hidden layer is standardised before its activation, by nothing that is learned"""
    init: Init = "orthogonal"
    """weights at the start: orthogonal (Saxe 2014), or sparse: nine in ten are 0 (Elsayed 2024)"""

    def __post_init__(self) -> None:
        hidden = (self.hidden,) if isinstance(self.hidden, int) else tuple(self.hidden)
        object.__setattr__(self, "hidden", hidden)
        check_sizes("critic.hidden", hidden)
        check_switches(self, "critic.")
        check_choice("critic.init", self.init, get_args(Init))


def usual(module: Any, room: str) -> dict[str, Any]:
    """What an algorithm's policy, or critic, is made of where the user leaves it open."""
    defaults = {name.partition(".")[::2]: value for name, value in module.DEFAULTS.items()}
    return {field: value for (its, field), value in defaults.items() if its == room}


class Agent:
    """Acts, is saved and loaded. Make one with `covary.train` or `covary.load`.

    Attributes:
        policy: an nn.Module from a float tensor (B, O) of raw observations to the density of raw actions.
        learner: the algorithm's networks and optimizers.
        steps: transitions it was trained on.
    """

    def __init__(
        self,
        algo: str,
        observation_space: Any,
        action_space: Any,
        *,
        config: Any = None,
        policy: PolicyConfig | None = None,
        critic: CriticConfig | None = None,
        torso: nn.Module | None = None,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        module = algorithms.find(algo)
        self.algo, self.config = algo, config or module.Config()
        own_policy = PolicyConfig(**usual(module, "policy"))
        self.policy_config = policy or own_policy
        self.critic_config = critic or CriticConfig(**usual(module, "critic"))
        self.observation_space, self.action_space = observation_space, action_space
        self.encode, self.decode = spaces.Encoder(observation_space), spaces.Decoder(action_space)
        if module.Learner.judges_actions and not hasattr(action_space, "low"):
            raise UsageError(
                f"{algo} needs actions that are numbers: its policy learns through the action.",
                given=f"{action_space}",
                fix="--algo ppo, or actor_critic",
            )
        if module.Learner.needs_gaussian:
            _check_gaussian(algo, math.prod(action_space.shape), self.policy_config)
        self.device, self.seed, self.steps = torch.device(device), seed, 0
        self.custom_torso = torso is not None
        net_seed, noise_seed = (int(s) for s in np.random.SeedSequence((seed, 0xA6E7)).generate_state(2))
        size = self.encode.size
        # The user's own random numbers are not ours to move; and threads, once started, would be missing in a fork.
        with torch.random.fork_rng(devices=[]), threads_of_torch(1):
            torch.manual_seed(net_seed)
            c = self.critic_config
            own = copy.deepcopy(torso)
            body = None if module.Learner.judges_actions else own or mlp(size, c.hidden, c.activation, c.layer_norm)
            self.policy = make_policy(
                size,
                action_space,
                self.policy_config,
                torso=copy.deepcopy(torso),
                one_hot=self.encode.one_hot,
                usual=own_policy,
            )
            if body is not None:
                judge: Value | QValues = Value(body, width_of(body, size))
            else:
                seen = self.policy.head.seen
                judge = QValues(self.config.critics, size, seen, c.hidden, c.activation, own, c.layer_norm)
            if c.init == "sparse":
                ours = judge.head if isinstance(judge, Value) else judge.values
                make_sparse(judge if torso is None else ours)
        # A torso with dropout or batch statistics must give one density for one observation: PPO's ratio rests on it.
        self.policy.to(self.device).eval()
        judge.to(self.device).eval()
        generator = torch.Generator().manual_seed(noise_seed)  # the CPU's, so that any device can go on from it
        self.learner: Learner = module.Learner(self.policy, judge, self.config, generator)
        self.fast: FastPath | None = None
        self.ahead: NDArray[np.float32] = np.zeros((0, 0), np.float32)  # noise that was drawn and not used yet
        self.carried: NDArray[np.float32] = np.zeros((0, 0), np.float32)  # (N, W) the last that was correlated
        if self.correlated and not isinstance(self.policy.head, GaussianHead):
            raise UsageError(
                "Noise that is correlated in time needs a Gaussian policy.",
                given=f"exploration correlated with {type(self.policy.head).__name__.removesuffix('Head')} actions",
                fix="exploration white; or policy.bounds auto",
            )
        if self.correlated and self.config.correlation_time > LONGEST:
            raise UsageError(
                f"correlation_time is at most {LONGEST:,} steps.",
                given=f"{self.config.correlation_time:g}",
                cause="noise that hardly changes over a whole run",
                fix="correlation_time 15, or about as many steps as one push takes to show",
            )

    def noise(self, *shape: int) -> NDArray[np.float32]:
        """What draws of this shape are made of, from the agent's own random numbers: (*shape, D) or (*shape,)."""
        noise: NDArray[np.float32] = self.policy.head.noise(shape, self.learner.generator).numpy()
        return noise

    @property
    def correlated(self) -> bool:
        """Whether the noise of its steps is correlated in time."""
        return getattr(self.config, "exploration", "white") == "correlated"

    def noise_in_time(self, t: int, n: int) -> NDArray[np.float32]:
        """noise(t, n) for t steps that follow those of the last call.

        Where exploration is correlated it is an autoregressive process of order one, which is standard normal at every
        step: e_t = k e_{t-1} + sqrt(1 - k^2) w_t, k = exp(-1 / correlation_time), w white.
        """
        noise = self.noise(t, n)
        if self.correlated:
            # In float64: in float32 the k of a long time is 1, and the noise would never change.
            keep = math.exp(-1 / self.config.correlation_time)
            new = math.sqrt(-math.expm1(-2 / self.config.correlation_time))
            for k, now in enumerate(noise):
                before = noise[k - 1] if k else self.carried
                if len(before):
                    now[...] = np.multiply(new, now, dtype=np.float64) + np.multiply(keep, before, dtype=np.float64)
            self.carried = noise[-1].copy()
        return noise

    def next_noise(self, n: int) -> NDArray[np.float32]:
        """noise(n) for one step after another; drawn for many at once, which is cheaper, and kept in checkpoints."""
        if not len(self.ahead) or self.ahead.shape[1] != n:
            self.ahead = self.noise(256, n)
        noise, self.ahead = self.ahead[0], self.ahead[1:]
        return noise

    @torch.no_grad()
    def sample(
        self, obs: NDArray[np.float32], noise: NDArray[np.float32] | None = None
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """(N, O) encoded observations -> latents (N, D) and actions (N, D). noise: as `noise(N)` draws it."""
        noise = self.noise(len(obs)) if noise is None else noise
        density = self.policy(torch.from_numpy(obs).to(self.device))
        latent = density.sample_latent(noise=torch.from_numpy(noise).to(self.device))
        return latent.cpu().numpy(), density.to_action(latent).cpu().numpy()

    @torch.no_grad()
    def act(self, obs: Any, deterministic: bool = False) -> Any:
        """The action for one observation, or for a batch of them; numpy in and out, in the environment's own units.

        Args:
            obs: as the environment gives it, *shape or (B, *shape).
            deterministic: the density's median (mode of a discrete one) in place of a sample.

        Raises:
            UsageError: an observation of another shape.
        """
        x = np.asarray(obs)
        single = x.shape == (self.observation_space.shape or ())
        if not single and x.shape[1:] != (self.observation_space.shape or ()):
            raise UsageError(
                f"An observation has shape {self.observation_space.shape}, a batch one dimension more in front.",
                given=f"shape {x.shape}",
            )
        encoded = self.encode(x[None] if single else x)
        if not np.isfinite(encoded).all():
            raise UsageError("An observation must be finite.", given=f"{encoded[~np.isfinite(encoded)][0]} in obs")
        if deterministic:
            action = self.policy(torch.from_numpy(encoded).to(self.device)).deterministic_action.cpu().numpy()
        else:
            _, action = self.sample(encoded)
        actions = self.decode(action)
        return actions[0] if single else actions

    # ---- saving and loading

    def state(self) -> tuple[runs.Arrays, dict[str, Any]]:
        """All that it is: named arrays, and the rest as JSON."""
        tensors = {f"policy.{k}": v for k, v in self.policy.state_dict().items()}
        for name, network in self.learner.networks.items():
            tensors |= {f"{name}.{k}": v for k, v in network.state_dict().items()}
        for name, optimizer in self.learner.optimizers.items():
            tensors |= {f"{name}.{k}": v for k, v in optimizer.state().items()}
        tensors["generator"] = self.learner.generator.get_state()
        if len(self.ahead):
            tensors["noise"] = torch.from_numpy(self.ahead.copy())
        if len(self.carried):
            tensors["carried_noise"] = torch.from_numpy(self.carried.copy())
        meta = {
            "covary": covary.__version__,
            "algo": self.algo,
            "steps": self.steps,
            "seed": self.seed,
            "observation_space": spaces.to_json(self.observation_space),
            "action_space": spaces.to_json(self.action_space),
            "config": asdict(self.config),
            "policy": asdict(self.policy_config),
            "critic": asdict(self.critic_config),
            "custom_torso": self.custom_torso,
            "noise": len(self.ahead),
            "learner": self.learner.numbers(),
        }
        return {k: v.detach().cpu().numpy() for k, v in tensors.items()}, meta

    def save(self, path: str | Path) -> Path:
        """Writes a checkpoint folder, complete or not at all."""
        runs.write_checkpoint(Path(path), *self.state())
        return Path(path)

    def restore(self, arrays: runs.Arrays, meta: dict[str, Any]) -> None:
        """Takes over a checkpoint's state.

        Raises:
            UsageError: one whose tensors do not fit this agent.
        """
        try:
            description.check_state(meta, "the checkpoint")
            description.check_arrays(arrays, self.state()[0])
            description.check_numbers(meta["learner"], self.learner.numbers(), "learner")
            if rows := meta.get("noise", 0):  # the first runs kept none
                uniform = self.policy.head.uniform_noise
                description.check_noise(rows, arrays.get("noise"), self.noise(0, 1), uniform)
            tensors = {k: torch.from_numpy(np.array(v)) for k, v in arrays.items()}
            self.policy.load_state_dict(_under("policy.", tensors))
            for name, network in self.learner.networks.items():
                network.load_state_dict(_under(f"{name}.", tensors))
            for name, optimizer in self.learner.optimizers.items():
                if state := _under(f"{name}.", tensors):
                    optimizer.load_state(state)
            _set_state(self.learner.generator, tensors["generator"])
            self.ahead = tensors["noise"].numpy() if rows else np.zeros((0, 0), np.float32)
            if "carried_noise" in arrays:
                self.carried = np.array(arrays["carried_noise"])
                description.check_noise(1, self.carried[None], self.noise(0, 1), False)
                if len(self.carried) != self.config.n_envs:
                    raise ValueError(f"carried_noise of {len(self.carried)} rows, n_envs {self.config.n_envs}")
            self.learner.load_numbers(meta["learner"])
            self.steps = meta["steps"]
        except UsageError:
            raise
        except (KeyError, RuntimeError, TypeError, ValueError, OverflowError) as error:
            raise UsageError(
                "A checkpoint must fit the agent it is loaded into.",
                given=" ".join(str(error).split())[:300] if not isinstance(error, KeyError) else f"no {error}",
                cause="another torso, or a file that was changed",
            ) from error

    def start_from(self, other: Agent) -> None:
        """Another agent's networks and normaliser under this one's covariance: the same mean and the same spread.

        Critics come with it, and the scale of their rewards, where both are of states or both of actions in the same
        units.

        Raises:
            UsageError: other spaces, another number of critics, torsos of other shapes, other bounds.
        """
        for room, field in (
            ("policy", "hidden"),
            ("policy", "activation"),
            ("policy", "layer_norm"),
            ("policy", "normalize_obs"),
            ("critic", "hidden"),
            ("critic", "activation"),
            ("critic", "layer_norm"),
        ):
            mine, its = (getattr(getattr(each, f"{room}_config"), field) for each in (self, other))
            if mine != its and not self.custom_torso:
                raise UsageError(
                    f"--init-from needs the same {room}.{field}.",
                    given=f"{its} there, {mine} here",
                    fix=f"--{room}.{field} {' '.join(map(str, its)) if isinstance(its, tuple) else its}",
                )
        for field in ("observation_space", "action_space"):
            if getattr(self, field) != getattr(other, field):
                raise UsageError(
                    "--init-from needs an agent of the same environment.",
                    given=f"{field} {getattr(other, field)}, here {getattr(self, field)}",
                )
        mine, its = (len(getattr(each.learner.critic, "values", ())) for each in (self, other))
        if mine and its and mine != its:
            raise UsageError(
                "--init-from needs the same number of critics.",
                given=f"{its} there, {mine} here",
                fix=f"--critics {its}",
            )
        try:
            self.policy.torso.load_state_dict(other.policy.torso.state_dict())
            self.policy.normalizer.load_state_dict(other.policy.normalizer.state_dict())
            self.policy.head.start_from(other.policy.head)  # type: ignore[arg-type]
            if (judged := self._judges_like(other)) or self.algo == other.algo:
                self._take_over(other, judged)
        except RuntimeError as error:
            raise UsageError(
                "--init-from needs networks of the same shapes.",
                given=" ".join(str(error).split())[:300],
                cause="another torso",
                fix="the torso that it was trained with",
            ) from error
        if (target := self.learner.networks.get("target_policy")) is not None:
            target.load_state_dict(self.policy.state_dict())

    def _judges_like(self, other: Agent) -> bool:
        """Whether a critic of another agent's sees what this one's does: states, or actions in the same units."""
        mine, its = (
            [each for name, each in agent.policy.head.named_buffers() if name.rpartition(".")[2] in ("origin", "unit")]
            for agent in (self, other)
        )
        of_states = isinstance(self.learner.critic, Value)
        same = len(mine) == len(its) and all(torch.equal(a.cpu(), b.cpu()) for a, b in zip(mine, its, strict=True))
        return type(self.learner.critic) is type(other.learner.critic) and (of_states or same)

    def _take_over(self, other: Agent, judged: bool) -> None:
        """What another agent has learned beside its policy; its critics where they are `judged` to be of use here."""
        alike = self.algo == other.algo
        for name, network in self.learner.networks.items():
            of_critics = name in ("critic", "target")
            if name != "target_policy" and (judged if of_critics else alike):
                network.load_state_dict(other.learner.networks[name].state_dict())
        scale = other.learner.reward_scale.state()  # in which its critics' values are
        del scale["carry"]  # of episodes that are not these
        if alike:
            self.learner.load_numbers(other.learner.numbers() | {"reward_scale": scale})
        else:
            self.learner.reward_scale.load_state(scale)


def _check_gaussian(algo: str, dims: int, config: PolicyConfig) -> None:
    """Raises UsageError where a dimension of the action is a Beta."""
    words = (config.bounds,) if isinstance(config.bounds, str) else config.bounds
    each = words * dims if len(words) == 1 else words
    if betas := tuple(i for i, word in enumerate(each) if word == "beta" and i not in config.periodic):
        raise UsageError(
            f"{algo} needs a Gaussian in every dimension; a Beta has no covariance.",
            given=f"policy.bounds beta in dimensions {betas}",
            fix="policy.bounds squash; or --algo sac or ppo, which take a Beta",
        )


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _set_state(generator: torch.Generator, state: Tensor) -> None:
    """Raises ValueError, or torch's RuntimeError, for a state that no generator was ever in."""
    trial = torch.Generator().set_state(state)  # it keeps numbers that are drawn already, of which the next is made
    draws = torch.randn(1, generator=trial), torch.randn(1, generator=trial, dtype=torch.float64)
    if not all(bool(x.abs() < 100) for x in draws):
        raise ValueError("a generator whose next number no generator draws")
    generator.set_state(state)


def load(path: str | Path, torso: nn.Module | None = None, *, device: str = "cpu") -> Agent:
    """The agent in a checkpoint, or in the newest checkpoint of a run that is whole; newer ones that are not are named
    on stderr. Imports nothing that a file names.

    Args:
        torso: the module that the policy was trained with, if it was your own.

    Raises:
        UsageError: no such checkpoint, a broken one, one of another version, or one that needs its torso.
    """
    place, arrays, meta = runs.newest_checkpoint(path)
    said = description.read(meta, CriticConfig, place)
    if said.custom_torso and torso is None:
        raise UsageError(
            "This policy was trained with a torso of its user's own.",
            given=place,
            fix="covary.load(path, torso=MyTorso())",
        )
    observed, acted = spaces.from_json(meta["observation_space"]), spaces.from_json(meta["action_space"])
    description.check_size(said, spaces.Encoder(observed).size, acted, arrays, place)
    try:
        agent = Agent(
            said.algo,
            observed,
            acted,
            config=said.config,
            policy=said.policy,
            critic=said.critic,
            torso=torso,
            seed=said.seed,
            device=device,
        )
    except UsageError:
        raise
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UsageError("agent.json must describe an agent.", given=f"{place}: {str(error)[:300]}") from error
    agent.restore(arrays, meta)
    return agent


__all__ = ["Agent", "CriticConfig", "load"]
