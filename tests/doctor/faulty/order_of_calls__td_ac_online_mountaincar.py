from __future__ import annotations
import gymnasium as gym
import numpy as np
import torch
from torch import nn


class TileFeatures:
    """random fourier features of the observation"""

    def __init__(self, low: np.ndarray, high: np.ndarray, n: int = 64, seed: int = 0) -> None:
        r = np.random.default_rng(seed)
        self.w, self.b = r.normal(0, 2.0, (n, low.size)), r.uniform(0, 2 * np.pi, n)
        self.low, self.high = low, high

    def __call__(self, obs: np.ndarray) -> torch.Tensor:
        z = 2 * (obs - self.low) / (self.high - self.low) - 1
        return torch.as_tensor(np.cos(self.w @ z + self.b), dtype=torch.float32)


class Learner:
    def __init__(self, n_feat: int, n_act: int, gamma: float) -> None:
        self.pi, self.v = nn.Linear(n_feat, n_act), nn.Linear(n_feat, 1)
        self.opt = torch.optim.SGD([{"params": self.pi.parameters(), "lr": 2e-3}, {"params": self.v.parameters(), "lr": 1e-2}])
        self.gamma = gamma

    def act(self, phi: torch.Tensor) -> tuple[int, torch.Tensor]:
        d = torch.distributions.Categorical(logits=self.pi(phi))
        a = d.sample()
        return int(a), d.log_prob(a)

    def update(self, phi, logp, reward: float, phi2, terminated: bool) -> float:
        with torch.no_grad():
            target = reward + (0.0 if terminated else self.gamma * self.v(phi2))
        delta = target - self.v(phi)
        loss = 0.5 * delta.pow(2).sum() - (delta.detach() * logp).sum()
        self.opt.zero_grad()
        self.opt.step()  # expect: order-of-calls
        loss.backward()
        return delta.item()


def main() -> None:
    torch.manual_seed(31)
    env = gym.make("MountainCar-v0")
    feats = TileFeatures(env.observation_space.low, env.observation_space.high)
    agent = Learner(64, 3, 0.99)
    for episode in range(10):
        obs, _ = env.reset(seed=episode)
        phi, err, n = feats(obs), 0.0, 0
        while True:
            a, logp = agent.act(phi)
            obs, r, terminated, truncated, _ = env.step(a)
            phi2 = feats(obs)
            err += abs(agent.update(phi, logp, float(r), phi2, terminated))
            phi, n = phi2, n + 1
            if terminated or truncated:
                break
        print(f"episode {episode}: {n} steps, mean |td| {err / n:.3f}")


if __name__ == "__main__":
    main()
