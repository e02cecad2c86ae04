# PPO-clip, steering a ship on a heading. Batch of ships simulated with numpy.
import numpy as np
import torch
import torch.nn as nn
from torch.distributions import Normal

np.random.seed(19); torch.manual_seed(19)
N_SHIPS, HORIZON, GAMMA, LAMBDA, CLIP = 24, 25, 0.95, 0.9, 0.2


def sim(state, rudder):
    heading, rate = state[:, 0], state[:, 1]
    rate = 0.85 * rate + 0.15 * np.clip(rudder, -1, 1)
    heading = heading + rate
    nxt = np.stack([heading, rate], 1)
    return nxt, -(heading ** 2) - 0.05 * rudder ** 2


def start():
    return np.stack([np.random.uniform(-1, 1, N_SHIPS), np.zeros(N_SHIPS)], 1)


T = lambda x: torch.as_tensor(np.asarray(x), dtype=torch.float32)
mu = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 1))
log_std = nn.Parameter(torch.tensor([-0.5]))
vf = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 1))
everything = [*mu.parameters(), log_std, *vf.parameters()]
opt = torch.optim.Adam(everything, lr=1e-3)


def pi(o):
    return Normal(mu(o), log_std.clamp(-3, 0).exp())


for it in range(40):
    s = start()
    O, A, R, LP, V = [], [], [], [], []
    with torch.no_grad():
        for _ in range(HORIZON):
            o = T(s)
            d = pi(o)
            a = d.sample()
            O.append(o); A.append(a); LP.append(d.log_prob(a).sum(1)); V.append(vf(o).squeeze(1))
            s, r = sim(s, a.numpy()[:, 0])
            R.append(T(r))
        V.append(vf(T(s)).squeeze(1))
        adv, g = [], 0.0
        for t in reversed(range(HORIZON)):
            g = R[t] + GAMMA * V[t + 1] - V[t] + GAMMA * LAMBDA * g
            adv.insert(0, g)
        adv = torch.stack(adv)
        ret = (adv + torch.stack(V[:-1])).flatten()
        adv = ((adv - adv.mean()) / adv.std()).flatten()
    O, A, LP = torch.cat(O), torch.cat(A), torch.cat(LP)
    for _ in range(4):
        for mb in torch.randperm(len(O)).chunk(4):
            ratio = torch.exp(pi(O[mb]).log_prob(A[mb]).sum(1) - LP[mb])
            s1, s2 = ratio * adv[mb], ratio.clamp(1 - CLIP, 1 + CLIP) * adv[mb]
            loss = -torch.min(s1, s2).mean() + 0.5 * (vf(O[mb]).squeeze(1) - ret[mb]).pow(2).mean()
            loss.backward()
            nn.utils.clip_grad_norm_(everything, 0.5)
            opt.zero_grad()  # expect: order-of-calls
            opt.step()
    if it % 10 == 0:
        print(it, "mean reward", torch.stack(R).mean().item())
