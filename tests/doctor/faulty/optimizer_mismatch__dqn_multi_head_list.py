import random
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


class Transition(NamedTuple):
    s: np.ndarray
    a: int
    r: float
    s2: np.ndarray
    done: bool


class BootstrappedQ(nn.Module):
    """Shared body, several Q heads; the mean over the heads acts."""

    def __init__(self, obs_dim: int, n_actions: int, n_heads: int = 4):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(obs_dim, 64), nn.ReLU(), nn.LayerNorm(64))
        self.heads = [nn.Linear(64, n_actions) for _ in range(n_heads)]  # expect: optimizer-mismatch

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.body(x)
        return torch.stack([head(h) for head in self.heads], dim=1)


def main() -> None:
    random.seed(2); np.random.seed(2); torch.manual_seed(2)
    env = gym.make("CartPole-v1")
    q = BootstrappedQ(4, 2)
    optimizer = torch.optim.Adam(q.parameters(), lr=1e-3)
    buffer: list[Transition] = []
    s, _ = env.reset(seed=2)
    eps, gamma = 1.0, 0.97
    for step in range(700):
        eps = max(0.05, eps * 0.995)
        if random.random() < eps:
            a = random.randrange(2)
        else:
            with torch.no_grad():
                a = int(q(torch.as_tensor(s).unsqueeze(0)).mean(1).argmax())
        s2, r, term, trunc, _ = env.step(a)
        buffer.append(Transition(s, a, r, s2, term))
        s = env.reset()[0] if term or trunc else s2
        if len(buffer) < 64:
            continue
        batch = Transition(*zip(*random.sample(buffer, 32)))
        states = torch.from_numpy(np.stack(batch.s))
        next_states = torch.from_numpy(np.stack(batch.s2))
        actions = torch.tensor(batch.a)
        rewards = torch.tensor(batch.r, dtype=torch.float32)
        not_done = 1.0 - torch.tensor(batch.done, dtype=torch.float32)
        with torch.no_grad():
            best = q(next_states).max(dim=-1).values
            target = rewards[:, None] + gamma * not_done[:, None] * best
        index = actions[:, None, None].expand(-1, best.shape[1], 1)
        pred = q(states).gather(-1, index).squeeze(-1)
        loss = F.smooth_l1_loss(pred, target)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_value_(q.parameters(), 10.0)
        optimizer.step()
        if step % 150 == 0:
            print(step, f"loss {loss.item():.4f} eps {eps:.2f}")


if __name__ == "__main__":
    main()
