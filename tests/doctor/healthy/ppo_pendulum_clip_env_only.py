import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
from torch.distributions import Normal

torch.manual_seed(103)
np.random.seed(103)
T, GAMMA, LAM = 200, 0.95, 0.9


class Agent(nn.Module):
    def __init__(self):
        super().__init__()
        self.mu = nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 1))
        self.v = nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 1))
        self.log_std = nn.Parameter(torch.zeros(1))

    def dist(self, x):
        return Normal(self.mu(x), self.log_std.clamp(-2, 0.7).exp())

    def value(self, x):
        return self.v(x).squeeze(-1)


def warmup(step, n=20):
    return min(1.0, (step + 1) / n)


agent = Agent()
opt = torch.optim.Adam(agent.parameters(), lr=1e-3, eps=1e-5)
sched = torch.optim.lr_scheduler.LambdaLR(opt, warmup)
env = gym.make("Pendulum-v1")
obs, _ = env.reset(seed=103)
for update in range(9):
    buf = {k: [] for k in ("s", "a", "logp", "v", "v2", "r", "cut")}
    with torch.no_grad():
        for _ in range(T):
            s = torch.from_numpy(obs)
            d = agent.dist(s)
            a = d.sample()
            obs, r, term, trunc, _ = env.step(a.clamp(-2.0, 2.0).numpy())
            row = (s, a, d.log_prob(a).sum(-1), agent.value(s), agent.value(torch.from_numpy(obs)), torch.tensor(r / 8.0), trunc)
            for k, x in zip(buf, row):
                buf[k].append(x)
            if trunc:
                obs, _ = env.reset()
    s, a, old_logp, v_old, v2 = (torch.stack(buf[k]) for k in ("s", "a", "logp", "v", "v2"))
    r = torch.stack(buf["r"]).float()
    adv, last = torch.zeros(T), 0.0
    for t in reversed(range(T)):
        delta = r[t] + GAMMA * v2[t] - v_old[t]
        last = delta + GAMMA * LAM * (0.0 if buf["cut"][t] else last)
        adv[t] = last
    ret = adv + v_old
    for epoch in range(5):
        for mb in torch.randperm(T).split(50):
            d = agent.dist(s[mb])
            logp = d.log_prob(a[mb]).sum(-1)
            ratio = (logp - old_logp[mb]).exp()
            with torch.no_grad():
                kl = (old_logp[mb] - logp).mean().item()
            n_adv = (adv[mb] - adv[mb].mean()) / (adv[mb].std() + 1e-8)
            pg = -torch.min(ratio * n_adv, ratio.clamp(0.8, 1.2) * n_adv).mean()
            v = agent.value(s[mb])
            loss = pg + 0.5 * (v - ret[mb]).pow(2).mean() - 0.001 * d.entropy().mean()
            opt.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
            opt.step()
            sched.step()
    print(update, f"reward {r.mean():.3f} kl {kl:.4f} loss {loss.item():.3f}")
