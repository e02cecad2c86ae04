import copy
import random
import torch
from torch import nn

random.seed(1)
torch.manual_seed(1)


class Servo:
    """Turn a shaft to the commanded angle, observation = (angle, command)."""

    def reset(self):
        self.angle, self.cmd = random.uniform(-1, 1), random.uniform(-1, 1)
        return [self.angle, self.cmd]

    def step(self, u):
        self.angle = max(-1.5, min(1.5, self.angle + 0.2 * u))
        return [self.angle, self.cmd], -abs(self.angle - self.cmd) - 0.02 * u * u


class DDPG:
    def __init__(self):
        self.mu = nn.Sequential(nn.Linear(2, 40), nn.ReLU(), nn.Linear(40, 1), nn.Tanh())
        self.Q = nn.Sequential(nn.Linear(3, 40), nn.ReLU(), nn.Linear(40, 1))
        self.mu_, self.Q_ = copy.deepcopy(self.mu), copy.deepcopy(self.Q)
        self.mu_opt = torch.optim.Adam(self.mu.parameters(), lr=5e-4)
        self.Q_opt = torch.optim.Adam(self.Q.parameters(), lr=1e-3)

    def update(self, s, u, r, s2):
        with torch.no_grad():
            y = r + 0.9 * self.Q_(torch.cat([s2, self.mu_(s2)], 1))
        critic_loss = (self.Q(torch.cat([s, u], 1)) - y).pow(2).mean()
        actor_loss = -self.Q(torch.cat([s, self.mu(s)], 1)).mean()

        self.mu_opt.zero_grad()
        self.Q_opt.zero_grad()
        critic_loss.backward()
        actor_loss.backward()  # expect: crossed-gradients
        self.Q_opt.step()
        self.mu_opt.step()

        for net, slow in [(self.mu, self.mu_), (self.Q, self.Q_)]:
            for p, ps in zip(net.parameters(), slow.parameters()):
                ps.data = 0.98 * ps.data + 0.02 * p.data
        return critic_loss.item(), actor_loss.item()


env, ddpg, replay = Servo(), DDPG(), []
for ep in range(60):
    s, total = env.reset(), 0.0
    for _ in range(30):
        with torch.no_grad():
            u = ddpg.mu(torch.tensor(s)).item()
        u = max(-1.0, min(1.0, u + random.gauss(0, 0.25)))
        s2, r = env.step(u)
        replay.append((s, [u], [r], s2))
        s, total = s2, total + r
        if len(replay) > 100:
            batch = [torch.tensor(x) for x in zip(*random.sample(replay, 64))]
            stats = ddpg.update(*batch)
    if ep % 15 == 14:
        print(f"ep {ep} return {total:.2f} critic {stats[0]:.3f} actor {stats[1]:.3f}")
