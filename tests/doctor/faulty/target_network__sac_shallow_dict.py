import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.distributions import Normal

torch.manual_seed(79)
np.random.seed(79)


def mlp(i, o):
    return nn.Sequential(nn.Linear(i, 64), nn.ReLU(), nn.Linear(64, o))


class SACAgent:
    def __init__(self, gamma=0.98, tau=0.01, lr=1e-3):
        self.gamma, self.tau = gamma, tau
        self.actor = mlp(3, 2)
        self.critics = {"q1": mlp(4, 1), "q2": mlp(4, 1)}
        self.targets = dict(self.critics)  # expect: target-network
        self.log_alpha = torch.tensor(-2.0, requires_grad=True)
        self.opts = {
            "actor": torch.optim.Adam(self.actor.parameters(), lr=lr),
            "critic": torch.optim.Adam([p for q in self.critics.values() for p in q.parameters()], lr=lr),
            "alpha": torch.optim.Adam([self.log_alpha], lr=lr),
        }

    def pi(self, s):
        mu, ls = self.actor(s).chunk(2, -1)
        d = Normal(mu, ls.clamp(-5, 1).exp())
        u = d.rsample()
        logp = d.log_prob(u) - 2 * (np.log(2) - u - F.softplus(-2 * u))
        return 2 * torch.tanh(u), logp

    @staticmethod
    def smallest(critics, s, a):
        x = torch.cat([s, a], -1)
        return torch.min(*(q(x) for q in critics.values()))

    def descend(self, name, loss):
        self.opts[name].zero_grad()
        loss.backward()
        self.opts[name].step()

    def learn(self, s, a, r, s2):
        alpha = self.log_alpha.exp().detach()
        with torch.no_grad():
            a2, lp2 = self.pi(s2)
            y = r + self.gamma * (self.smallest(self.targets, s2, a2) - alpha * lp2)
        x = torch.cat([s, a], -1)
        loss_q = sum(F.mse_loss(q(x), y) for q in self.critics.values())
        self.descend("critic", loss_q)
        ap, lp = self.pi(s)
        self.descend("actor", (alpha * lp - self.smallest(self.critics, s, ap)).mean())
        self.descend("alpha", -(self.log_alpha * (lp.detach() - 1.0)).mean())
        self.polyak()
        return loss_q.item()

    @torch.no_grad()
    def polyak(self):
        for name, q in self.critics.items():
            for p, t in zip(q.parameters(), self.targets[name].parameters()):
                t.copy_(self.tau * p + (1 - self.tau) * t)


env, agent, replay = gym.make("Pendulum-v1"), SACAgent(), []
s, _ = env.reset(seed=79)
for t in range(450):
    with torch.no_grad():
        a = agent.pi(torch.from_numpy(s))[0].numpy()
    s2, r, term, trunc, _ = env.step(a)
    replay.append((s, a, np.array([r / 8], np.float32), s2))
    s = env.reset()[0] if trunc else s2
    if t > 100:
        idx = np.random.randint(len(replay), size=48)
        loss = agent.learn(*(torch.from_numpy(np.stack(c)) for c in zip(*(replay[i] for i in idx))))
        if t % 100 == 0:
            print(t, loss)
