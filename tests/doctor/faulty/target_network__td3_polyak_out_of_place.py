"""TD3 on a leaky-tank level control problem. NumPy env, torch agent."""
import copy
import numpy as np
import torch
import torch.nn as nn


class Tank:
    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def reset(self):
        self.level, self.goal = self.rng.uniform(0, 1, 2)
        return self._obs()

    def _obs(self):
        return np.array([self.level, self.goal, self.goal - self.level], dtype=np.float32)

    def step(self, valve):
        inflow = 0.1 * (valve + 1)
        self.level = float(np.clip(self.level + inflow - 0.12 * np.sqrt(max(self.level, 0.0)), 0, 2))
        return self._obs(), -(self.level - self.goal) ** 2 * 10


def soft_update(net, net_targ, polyak=0.99):
    with torch.no_grad():
        for p, p_targ in zip(net.parameters(), net_targ.parameters()):
            p_targ.data.mul(polyak).add((1 - polyak) * p.data)  # expect: target-network


class MLP(nn.Module):
    def __init__(self, sizes, final=None):
        super().__init__()
        mods = []
        for i, o in zip(sizes[:-1], sizes[1:]):
            mods += [nn.Linear(i, o), nn.ReLU()]
        mods.pop()
        if final is not None:
            mods.append(final)
        self.f = nn.Sequential(*mods)

    def forward(self, *xs):
        return self.f(torch.cat(xs, -1))


torch.manual_seed(14)
env = Tank(14)
noise = np.random.default_rng(15)
pi, qa, qb = MLP([3, 48, 1], nn.Tanh()), MLP([4, 48, 48, 1]), MLP([4, 48, 48, 1])
pi_t, qa_t, qb_t = copy.deepcopy(pi), copy.deepcopy(qa), copy.deepcopy(qb)
opt_pi = torch.optim.Adam(pi.parameters(), lr=1e-3)
opt_q = torch.optim.Adam(list(qa.parameters()) + list(qb.parameters()), lr=2e-3)
store = []
o, total = env.reset(), 0.0
for step in range(1, 2001):
    with torch.no_grad():
        u = pi(torch.from_numpy(o)).numpy() + noise.normal(0, 0.2, 1)
    u = np.clip(u, -1, 1).astype(np.float32)
    o2, r = env.step(u[0])
    store.append(np.concatenate([o, u, [r], o2]).astype(np.float32))
    o, total = o2, total + r
    if step % 50 == 0:
        if step % 400 == 0:
            print(f"step {step} return of the episode {total:.2f}")
        o, total = env.reset(), 0.0
    if step < 200:
        continue
    b = torch.from_numpy(np.stack([store[i] for i in noise.integers(0, len(store), 48)]))
    s, a, rew, s2 = b[:, :3], b[:, 3:4], b[:, 4:5], b[:, 5:]
    with torch.no_grad():
        a2 = torch.clamp(pi_t(s2) + torch.clamp(0.2 * torch.randn_like(a), -0.5, 0.5), -1, 1)
        y = rew + 0.95 * torch.min(qa_t(s2, a2), qb_t(s2, a2))
    loss_q = (qa(s, a) - y).pow(2).mean() + (qb(s, a) - y).pow(2).mean()
    opt_q.zero_grad()
    loss_q.backward()
    opt_q.step()
    if step % 2 == 0:
        loss_pi = -qa(s, pi(s)).mean()
        opt_pi.zero_grad()
        loss_pi.backward()
        opt_pi.step()
        for n, nt in ((pi, pi_t), (qa, qa_t), (qb, qb_t)):
            soft_update(n, nt)
