"""The question Covary began with: an online actor-critic for two bounded angles that runs for ever and never learns.

`broken` chooses actions as the question did; in `mended` three lines differ. Heliostat stands in for the environment.
"""

import sys

import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.distributions import MultivariateNormal

from covary.distributions import BoxNormal, Geometry

torch.set_num_threads(1)
env = gym.make("covary.envs:covary/Heliostat-v0")
low, high = torch.as_tensor(env.action_space.low), torch.as_tensor(env.action_space.high)
GAMMA = 0.0  # here an action touches only its own step's reward


class Network(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(inputs, 64), nn.Tanh(), nn.Linear(64, outputs))
        self.log_std = nn.Parameter(torch.tensor([0.0, 0.0]))  # the broken agent has no use for it

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def broken(actor: Network, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    thetas = low + (high - low) * torch.sigmoid(actor(obs)[:2])
    mu = torch.from_numpy(thetas.detach().numpy())  # learning ends here: the graph is cut, and nothing says so
    density = MultivariateNormal(mu, torch.diag(torch.tensor([1e-2, 1e-2])))
    action = density.sample()
    return action, density.log_prob(action)


def mended(actor: Network, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    elevation, x, y = actor(obs)
    mu = torch.stack([torch.atan2(y, x), elevation])  # straight from the network; the geometry keeps it in the box
    density = BoxNormal(mu, actor.log_std.exp(), geometry=Geometry.box(low, high, periodic=(0,)))
    action = density.sample()
    return action, density.log_prob(action)


def run(choose, steps: int) -> list[float]:
    torch.manual_seed(0)
    actor, critic = Network(9, 3), Network(9, 1)
    optimizer = torch.optim.Adam([*actor.parameters(), *critic.parameters()], lr=3e-4, fused=True)
    errors = []
    obs, _ = env.reset(seed=0)
    for _ in range(steps):
        state = torch.as_tensor(obs)
        action, log_prob = choose(actor, state)
        obs, reward, terminated, truncated, info = env.step(action.numpy().clip(low.numpy(), high.numpy()))
        errors.append(info["error_deg"])
        with torch.no_grad():
            next_value = 0.0 if terminated else critic(torch.as_tensor(obs))[0]
        delta = float(reward) + GAMMA * next_value - critic(state)[0]
        optimizer.zero_grad()
        (-log_prob * delta.detach() + delta.square()).backward()
        optimizer.step()
        if terminated or truncated:
            obs, _ = env.reset()
    return errors


def main(steps: int = 60_000) -> None:
    for choose in (broken, mended):
        errors = run(choose, steps)
        first, last = (np.median(part) for part in (errors[: steps // 10 + 1], errors[-steps // 10 :]))
        print(f"{choose.__name__:>7}: median pointing error {first:5.1f}° at first, {last:5.1f}° at last")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
