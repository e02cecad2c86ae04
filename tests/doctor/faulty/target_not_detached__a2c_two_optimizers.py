import numpy as np
import torch
import torch.nn as nn
from torch.distributions import Categorical


class GridWalk:
    """5x5 grid, goal in a corner, falling off the map ends the episode."""

    def __init__(self, rng):
        self.rng = rng

    def reset(self):
        self.pos = self.rng.integers(1, 4, size=2)
        return self._obs()

    def _obs(self):
        return torch.tensor((self.pos - 2) / 2.0, dtype=torch.float32)

    def step(self, a):
        self.pos = self.pos + np.array([(0, 1), (0, -1), (1, 0), (-1, 0)][a])
        off = bool((self.pos < 0).any() or (self.pos > 4).any())
        goal = bool((self.pos == 4).all())
        return self._obs(), (1.0 if goal else -1.0 if off else -0.02), off or goal


class A2C:
    def __init__(self):
        self.actor = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 4))
        self.critic = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 1))
        self.opts = {"critic": torch.optim.Adam(self.critic.parameters(), lr=3e-3),
                     "actor": torch.optim.Adam(self.actor.parameters(), lr=1e-3)}

    def policy(self, s):
        return Categorical(logits=self.actor(s))

    def _td_target(self, r, s2, d, gamma=0.95):
        with torch.no_grad():
            return r + gamma * (1 - d) * self.critic(s2).squeeze(-1)

    def _advantage(self, s, r, s2, d):
        return self._td_target(r, s2, d) - self.critic(s).squeeze(-1)  # expect: target-not-detached

    def learn(self, s, a, r, s2, d):
        dist = self.policy(s)
        advantage = self._advantage(s, r, s2, d)
        policy_loss = -(dist.log_prob(a) * advantage).mean() - 0.01 * dist.entropy().mean()
        value_loss = (self._td_target(r, s2, d) - self.critic(s).squeeze(-1)).pow(2).mean()
        for opt in self.opts.values():
            opt.zero_grad()
        (policy_loss + value_loss).backward()
        for opt in self.opts.values():
            opt.step()
        return policy_loss.item(), value_loss.item()


def main():
    torch.manual_seed(40)
    env, agent = GridWalk(np.random.default_rng(40)), A2C()
    s = env.reset()
    for update in range(250):
        rows = []
        for _ in range(16):
            with torch.no_grad():
                a = agent.policy(s).sample()
            s2, r, d = env.step(a.item())
            rows.append((s, a, torch.tensor(r), s2, torch.tensor(float(d))))
            s = env.reset() if d else s2
        losses = agent.learn(*(torch.stack(c) for c in zip(*rows)))
        if update % 50 == 0:
            print(update, losses)


if __name__ == "__main__":
    main()
