"""Your own actor and critic under Covary's densities, in your own loop: collect first, score later.

As in the answer to the original question, `forward(state, action)` gives the log-probability of a *given* action, so
that a whole episode is scored again in one batch. The environment is one whose optimum is known: the reward is highest
where the two actions lie on the line a1 = 2 a0 - 1, so that the best covariance is a narrow ellipse along it.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from torch import nn

from covary.distributions import BoxNormal, Geometry

torch.set_num_threads(1)
GEOMETRY = Geometry.box([0.0, -1.0], [1.0, 1.0])


class Actor(nn.Module):
    """Its own layers, a mean and a Cholesky factor with a positive diagonal."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(1, 32), nn.Tanh())
        self.mean = nn.Linear(32, 2)
        self.log_diagonal = nn.Parameter(torch.zeros(2))
        self.below = nn.Parameter(torch.zeros(()))

    def density(self, state: torch.Tensor) -> BoxNormal:
        zero = torch.zeros_like(self.below)
        lower = torch.stack([zero, zero, self.below, zero]).view(2, 2)
        return BoxNormal(
            self.mean(self.body(state)), scale_tril=lower + self.log_diagonal.exp().diag(), geometry=GEOMETRY
        )

    def forward(self, state: torch.Tensor, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        density = self.density(state)
        return density.log_prob(action), density.entropy()


def reward_of(action: torch.Tensor) -> torch.Tensor:
    return -(action[:, 1] - (2 * action[:, 0] - 1)).abs()  # 0 on the valley's floor, as low as -2


def main(updates: int = 600, seed: int = 0) -> None:
    torch.manual_seed(seed)
    actor, critic = Actor(), nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 1))
    optimizer = torch.optim.Adam([*actor.parameters(), *critic.parameters()], lr=1e-2)
    for update in range(updates):
        state = torch.rand(256, 1)
        with torch.no_grad():
            action = actor.density(state).sample()
        reward = reward_of(action)
        value = critic(state).squeeze(-1)
        advantage = (reward - value).detach()
        log_prob, entropy = actor(state, action)  # the given actions, scored again
        loss = -(log_prob * advantage).mean() - 0.02 * entropy.mean() + (value - reward).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if update % max(updates // 4, 1) == 0 or update == updates - 1:
            covariance = actor.density(torch.zeros(1, 1)).covariance_matrix[0].detach().numpy()
            correlation = covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])
            print(f"update {update:4d}: mean reward {reward.mean():6.3f}, correlation {correlation:5.2f}")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
