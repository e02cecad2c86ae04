import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
from torch.distributions import Categorical

torch.manual_seed(7)
T, GAMMA, LAM = 512, 0.99, 0.95


class ActorCritic(nn.Module):
    def __init__(self):
        super().__init__()
        self.pi = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 2))
        self.v = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 1))
        nn.init.orthogonal_(self.pi[2].weight, 0.01)
        nn.init.orthogonal_(self.v[2].weight, 1.0)

    def value(self, x):
        return self.v(x).squeeze(-1)


ac = ActorCritic()
opt = torch.optim.Adam(ac.parameters(), lr=1e-3, eps=1e-5)
sched = torch.optim.lr_scheduler.LinearLR(opt, 1.0, 0.3, total_iters=6)
env = gym.make("CartPole-v1")
obs, _ = env.reset(seed=7)
ep, eps = 0, []
for it in range(6):
    D = {k: np.zeros((T, 4) if k in ("o", "o2") else T, np.float32) for k in ("o", "a", "lp", "r", "o2", "term", "cut")}
    for t in range(T):
        with torch.no_grad():
            d = Categorical(logits=ac.pi(torch.from_numpy(obs)))
            a = d.sample()
        o2, r, term, trunc, _ = env.step(a.item())
        D["o"][t], D["a"][t], D["lp"][t] = obs, a.item(), d.log_prob(a).item()
        D["r"][t], D["o2"][t], D["term"][t], D["cut"][t] = r, o2, term, term or trunc
        ep += 1
        obs = o2
        if term or trunc:
            obs, _ = env.reset()
            eps.append(ep)
            ep = 0
    b = {k: torch.from_numpy(v) for k, v in D.items()}
    with torch.no_grad():
        v, v2 = ac.value(b["o"]), ac.value(b["o2"])
    # the value after a time-limit is kept; only the lambda chain stops there
    delta = b["r"] * 0.1 + GAMMA * (1 - b["term"]) * v2 - v
    adv, g = torch.zeros(T), 0.0
    for t in range(T - 1, -1, -1):
        g = delta[t] + GAMMA * LAM * (1 - b["cut"][t]) * g
        adv[t] = g
    ret = adv + v
    stop = False
    for epoch in range(6):
        for ix in torch.randperm(T).split(128):
            d = Categorical(logits=ac.pi(b["o"][ix]))
            logr = d.log_prob(b["a"][ix]) - b["lp"][ix]
            ratio = logr.exp()
            with torch.no_grad():
                kl = ((ratio - 1) - logr).mean()
            if kl > 0.03:
                stop = True
                break
            A = adv[ix]
            A = (A - A.mean()) / (A.std() + 1e-8)
            pg = -torch.min(A * ratio, A * ratio.clamp(0.8, 1.2)).mean()
            nv = ac.value(b["o"][ix])
            nvc = v[ix] + (nv - v[ix]).clamp(-0.5, 0.5)
            vl = 0.5 * torch.max((nv - ret[ix]) ** 2, (nvc - ret[ix]) ** 2).mean()
            loss = pg + 0.5 * vl - 0.01 * d.entropy().mean()
            opt.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(ac.parameters(), 0.5)
            opt.step()
        if stop:
            break
    sched.step()
    print(it, "length", np.mean(eps[-10:]), "kl", float(kl), "v loss", vl.item(), "epochs", epoch + 1)
