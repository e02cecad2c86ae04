import copy

import torch
import torch.nn as nn
import torch.nn.functional as F


class Replay:
    def __init__(self, cap, ds, da):
        self.td = {"s": torch.zeros(cap, ds), "a": torch.zeros(cap, da), "r": torch.zeros(cap, 1), "s2": torch.zeros(cap, ds)}
        self.n = 0

    def extend(self, **kw):
        k = len(kw["s"])
        for name, x in kw.items():
            self.td[name][self.n:self.n + k] = x
        self.n += k

    def sample(self, k):
        idx = torch.randint(0, self.n, (k,))
        return {name: x[idx] for name, x in self.td.items()}


class Trainer:
    def __init__(self, warmup=100, gamma=0.95, tau=0.02):
        self.actor = nn.Sequential(nn.Linear(2, 48), nn.ReLU(), nn.Linear(48, 1), nn.Tanh())
        self.critic = nn.Sequential(nn.Linear(3, 48), nn.SiLU(), nn.Linear(48, 48), nn.SiLU(), nn.Linear(48, 1))
        self.actor_t, self.critic_t = copy.deepcopy(self.actor), copy.deepcopy(self.critic)
        self.opt_a = torch.optim.Adam(self.actor.parameters(), lr=1e-3, maximize=True)
        self.opt_c = torch.optim.Adam(self.critic.parameters(), lr=2e-3)
        self.warmup, self.gamma, self.tau, self.k = warmup, gamma, tau, 0

    def q(self, net, s, a):
        return net(torch.cat([s, a], 1))

    def critic_step(self, b):
        with torch.no_grad():
            y = b["r"] + self.gamma * self.q(self.critic_t, b["s2"], self.actor_t(b["s2"]))
        loss = F.smooth_l1_loss(self.q(self.critic, b["s"], b["a"]), y)
        self.opt_c.zero_grad()
        loss.backward()
        self.opt_c.step()
        return loss.item()

    def actor_step(self, b):
        gain = self.q(self.critic, b["s"], self.actor(b["s"])).mean()
        self.opt_a.zero_grad()
        gain.backward()
        self.opt_a.step()
        return gain.item()

    def step(self, b):
        self.k += 1
        out = self.critic_step(b)
        if self.k > self.warmup:
            self.actor_step(b)
        for net, t in ((self.actor, self.actor_t), (self.critic, self.critic_t)):
            for p, pt in zip(net.parameters(), t.parameters()):
                pt.data.copy_((1 - self.tau) * pt.data + self.tau * p.data)
        return out


def simulate(s, a):
    x, v = s[:, :1], s[:, 1:]
    v = 0.95 * v + 0.2 * a
    x = (x + 0.2 * v).clamp(-3, 3)
    return torch.cat([x, v], 1), -0.1 * (x.square() + 0.1 * v.square())


torch.manual_seed(20)
tr, mem, s = Trainer(), Replay(6000, 2, 1), torch.randn(8, 2)
for step in range(550):
    with torch.no_grad():
        a = (tr.actor(s) + 0.3 * torch.randn(8, 1)).clamp(-1, 1)
        s2, r = simulate(s, a)
    mem.extend(s=s, a=a, r=r, s2=s2)
    s = torch.randn(8, 2) if step % 40 == 39 else s2
    loss = tr.step(mem.sample(64))
    if step % 100 == 38:
        print(step, f"reward {r.mean().item():.4f} critic {loss:.5f}")
