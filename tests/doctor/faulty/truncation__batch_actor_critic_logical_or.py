import numpy as np
import torch
import torch.nn as nn
from torch.distributions import Normal


class VecPointMass:
    """N independent point masses. Ends when leaving the arena, or after `limit` steps."""

    def __init__(self, n, limit, rng):
        self.n, self.limit, self.rng = n, limit, rng
        self.state = np.zeros((n, 2))
        self.t = np.zeros(n, dtype=int)
        self._reset(np.ones(n, dtype=bool))

    def _reset(self, mask):
        self.state[mask] = self.rng.uniform(-0.5, 0.5, size=(mask.sum(), 2))
        self.t[mask] = 0

    def obs(self):
        return self.state.astype(np.float32).copy()

    def step(self, u):
        x, v = self.state[:, 0], self.state[:, 1]
        v = 0.95 * v + 0.1 * np.clip(u, -1, 1)
        x = x + 0.2 * v
        self.state = np.stack([x, v], axis=1)
        self.t += 1
        reward = 1.0 - x ** 2
        terminated = np.abs(x) > 1.5
        truncated = self.t >= self.limit
        final_obs = self.obs()
        self._reset(terminated | truncated)
        return final_obs, self.obs(), reward, terminated, truncated


class ActorCritic(nn.Module):
    def __init__(self):
        super().__init__()
        self.actor_mean = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 1))
        self.actor_logstd = nn.Parameter(torch.full((1,), -0.5))
        self.critic = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 1))

    def dist(self, x):
        return Normal(self.actor_mean(x), self.actor_logstd.clamp(-2, 0).exp())

    def value(self, x):
        return self.critic(x).squeeze(-1)


def main():
    torch.manual_seed(30)
    rng = np.random.default_rng(30)
    envs = VecPointMass(n=16, limit=20, rng=rng)
    model = ActorCritic()
    opt = torch.optim.Adam(model.parameters(), lr=2e-3)
    gamma = 0.98

    obs = torch.from_numpy(envs.obs())
    for it in range(400):
        dist = model.dist(obs)
        action = dist.sample()
        log_prob = dist.log_prob(action).sum(-1)
        final_obs, next_obs, reward, terminated, truncated = envs.step(action.squeeze(-1).numpy())

        dones = np.logical_or(terminated, truncated)  # expect: truncation
        nonterminal = torch.as_tensor(1.0 - dones, dtype=torch.float32)
        reward_t = torch.as_tensor(reward, dtype=torch.float32)
        value = model.value(obs)
        with torch.no_grad():
            target = reward_t + gamma * nonterminal * model.value(torch.from_numpy(final_obs))
        td = target - value
        loss = -(log_prob * td.detach()).mean() + 0.5 * td.pow(2).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()

        obs = torch.from_numpy(next_obs)
        if it % 80 == 0:
            print(f"it {it:4d} reward {reward.mean():.3f} value {value.mean().item():.3f} ended {int(dones.sum())}")


if __name__ == "__main__":
    main()
