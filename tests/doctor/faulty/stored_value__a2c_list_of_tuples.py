import numpy as np
import torch
import torch.nn as nn
from torch.distributions import Normal

torch.manual_seed(21)


class Track:
    """A point on a line that should be brought back to the origin; it falls off the line at |x| > 3."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def reset(self):
        self.x = self.rng.uniform(-2, 2, size=2)
        return self.x.astype(np.float32)

    def step(self, a):
        self.x = self.x + np.array([0.1 * self.x[1], 0.1 * a]) + 0.01 * self.rng.normal(size=2)
        fell = abs(self.x[0]) > 3
        return self.x.astype(np.float32), -0.1 * float(self.x @ self.x) - (2.0 if fell else 0.0), fell


class Learner:
    def __init__(self):
        self.nets = (nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 1)),
                     nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 1)))
        self.log_std = nn.Parameter(torch.full((1,), -0.5))
        self.opt = torch.optim.Adam([*self.nets[0].parameters(), *self.nets[1].parameters(), self.log_std], lr=1e-3)
        self.memory = []

    def dist(self, s):
        return Normal(self.nets[0](s), self.log_std.clamp(-2, 1).exp())

    def choose_action(self, s):
        with torch.no_grad():
            a = self.dist(s).sample()
            return a, self.nets[1](s)

    def remember(self, *row):
        self.memory.append(row)

    def _returns(self, last, gamma=0.95):
        g, out = last, []
        for *_, r, d in reversed(self.memory):
            g = r + gamma * g * (1.0 - d)
            out.append(g)
        return torch.tensor(out[::-1], dtype=torch.float32).unsqueeze(1)

    def _columns(self):
        s, a, v, _, _ = zip(*self.memory)
        return torch.stack(s), torch.stack(a), torch.stack(v)

    def _critic_term(self, returns):
        _, _, values = self._columns()
        return (returns - values).pow(2).mean()  # expect: stored-value

    def _actor_term(self, returns):
        s, a, v = self._columns()
        adv = returns - v
        return -(self.dist(s).log_prob(a) * adv).mean()

    def learn(self, last_state):
        with torch.no_grad():
            last = self.nets[1](last_state).item()
        returns = self._returns(last)
        loss = self._actor_term(returns) + 0.5 * self._critic_term(returns)
        self.opt.zero_grad()
        loss.backward()
        self.opt.step()
        self.memory.clear()
        return loss.item()


env, agent = Track(0), Learner()
s = torch.from_numpy(env.reset())
for update in range(150):
    for _ in range(20):
        a, v = agent.choose_action(s)
        nxt, r, fell = env.step(a.item())
        agent.remember(s, a, v, r, float(fell))
        s = torch.from_numpy(env.reset() if fell else nxt)
    loss = agent.learn(s)
    if update % 30 == 0:
        print(update, loss)
