import gymnasium as gym
import numpy as np
import torch
from torch import nn

torch.manual_seed(8)


class Welford:
    def __init__(self, shape):
        self.n, self.mu, self.m2 = 1e-4, np.zeros(shape), np.zeros(shape)

    def see(self, x):
        self.n += 1
        d = x - self.mu
        self.mu = self.mu + d / self.n
        self.m2 = self.m2 + d * (x - self.mu)

    @property
    def std(self):
        return np.sqrt(self.m2 / self.n + 1e-4)

    def __call__(self, x):
        return np.clip((x - self.mu) / self.std, -5, 5).astype(np.float32)


class Wrapped:
    """a thin wrapper that returns (obs, scaled reward, final_obs or None)"""

    def __init__(self, env):
        self.env, self.norm, self.ret, self.rstat = env, Welford(3), 0.0, Welford(())

    def reset(self, seed=None):
        o, _ = self.env.reset(seed=seed)
        self.ret = 0.0
        return self.norm(o)

    def go(self, u):
        o, r, _, trunc, _ = self.env.step(np.clip(u, -1, 1) * 2.0)
        self.norm.see(o)
        self.ret = 0.95 * self.ret + r
        self.rstat.see(np.asarray(self.ret))
        o, r = self.norm(o), float(np.clip(r / self.rstat.std, -5, 5))
        if trunc:
            return self.reset(), r, o
        return o, r, None


def layer(i, o, gain=2 ** 0.5):
    lin = nn.Linear(i, o)
    nn.init.orthogonal_(lin.weight, gain)
    nn.init.zeros_(lin.bias)
    return lin


pi = nn.Sequential(layer(3, 48), nn.Tanh(), layer(48, 1, 0.01))
log_std = nn.Parameter(torch.full((1,), -0.3))
vf = nn.Sequential(layer(3, 48), nn.Tanh(), layer(48, 1, 1.0))
params = [*pi.parameters(), log_std, *vf.parameters()]
opt = torch.optim.Adam(params, lr=1e-3)
dist = lambda o: torch.distributions.Independent(torch.distributions.Normal(pi(o), log_std.clamp(-1.5, 0.5).exp()), 1)

env = Wrapped(gym.make("Pendulum-v1"))
o = env.reset(seed=8)
for it in range(5):
    O, U, LP, R, NXT, CUT = [], [], [], [], [], []
    for _ in range(400):
        ot = torch.from_numpy(o)
        with torch.no_grad():
            d = dist(ot)
            u = d.sample()
            LP.append(d.log_prob(u))
        O.append(ot)
        U.append(u)                       # what was sampled; the env does its own clipping
        o, r, final = env.go(u.numpy())
        R.append(r)
        NXT.append(torch.from_numpy(o if final is None else final))
        CUT.append(final is not None)
    O, U, LP, NXT = map(torch.stack, (O, U, LP, NXT))
    with torch.no_grad():
        v, vn = vf(O).flatten(), vf(NXT).flatten()
        adv, run = torch.zeros(400), 0.0
        for t in range(399, -1, -1):
            run = R[t] + 0.95 * vn[t] - v[t] + (0.0 if CUT[t] else 0.95 * 0.9 * run)
            adv[t] = run
        target = adv + v
        adv = (adv - adv.mean()) / adv.std()
    for k in range(8 * 4):
        j = torch.randint(400, (100,))
        d = dist(O[j])
        ratio = torch.exp(d.log_prob(U[j]) - LP[j])
        gain = torch.minimum(ratio * adv[j], ratio.clamp(0.8, 1.2) * adv[j]).mean()
        vloss = nn.functional.mse_loss(vf(O[j]).flatten(), target[j])
        loss = vloss - gain - 0.001 * d.entropy().mean()
        for p in params:
            p.grad = None
        loss.backward()
        nn.utils.clip_grad_norm_(params, 1.0)
        opt.step()
    print(it, "mean reward", np.mean(R), "value loss", vloss.item(), "std", log_std.exp().item())
