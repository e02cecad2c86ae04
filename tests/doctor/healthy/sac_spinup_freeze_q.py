# SAC with a learned temperature. Q-networks are frozen while the policy is updated, to save the backward work.
import itertools
from copy import deepcopy

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.distributions import Normal


def mlp(sizes, out=nn.Identity):
    layers = []
    for j in range(len(sizes) - 1):
        layers += [nn.Linear(sizes[j], sizes[j + 1]), nn.ReLU() if j < len(sizes) - 2 else out()]
    return nn.Sequential(*layers)


class SquashedGaussian(nn.Module):
    def __init__(self, obs_dim, act_dim):
        super().__init__()
        self.net = mlp([obs_dim, 48, 48], nn.ReLU)
        self.mu_layer = nn.Linear(48, act_dim)
        self.log_std_layer = nn.Linear(48, act_dim)

    def forward(self, obs, deterministic=False):
        h = self.net(obs)
        mu, std = self.mu_layer(h), self.log_std_layer(h).clamp(-4, 1).exp()
        pi = Normal(mu, std)
        u = mu if deterministic else pi.rsample()
        logp = pi.log_prob(u).sum(-1)
        logp = logp - (2 * (np.log(2) - u - F.softplus(-2 * u))).sum(-1)
        return torch.tanh(u), logp


class Thermostat:
    """n rooms that drift, heated or cooled with a in [-1, 1]; never ends."""

    def __init__(self, n, rng):
        self.rng, self.T, self.out = rng, rng.normal(0, 1, n), rng.normal(0, 1, n)

    def obs(self):
        return np.stack([self.T, self.out], 1).astype(np.float32)

    def step(self, a):
        self.out = 0.95 * self.out + 0.3 * self.rng.normal(size=len(self.out))
        self.T = self.T + 0.1 * (self.out - self.T) + 0.3 * a
        return self.obs(), -(self.T**2) - 0.05 * a**2


torch.manual_seed(2)
rng = np.random.default_rng(2)
env = Thermostat(8, rng)
pi, q1, q2 = SquashedGaussian(2, 1), mlp([3, 64, 64, 1]), mlp([3, 64, 64, 1])
q1_targ, q2_targ = deepcopy(q1), deepcopy(q2)
for p in itertools.chain(q1_targ.parameters(), q2_targ.parameters()):
    p.requires_grad = False
q_params = list(itertools.chain(q1.parameters(), q2.parameters()))
log_alpha = torch.tensor(-1.0, requires_grad=True)
pi_opt = torch.optim.Adam(pi.parameters(), lr=2e-3)
q_opt = torch.optim.Adam(q_params, lr=2e-3)
alpha_opt = torch.optim.Adam([log_alpha], lr=5e-3)
gamma, rho, target_entropy = 0.9, 0.98, -1.0
buf_o, buf_a, buf_r, buf_o2 = [], [], [], []
obs, recent = env.obs(), []
for t in range(260):
    with torch.no_grad():
        a, _ = pi(torch.from_numpy(obs))
    obs2, r = env.step(a.numpy()[:, 0])
    row = (torch.from_numpy(obs), a, torch.tensor(r, dtype=torch.float32), torch.from_numpy(obs2))
    for buf, item in zip((buf_o, buf_a, buf_r, buf_o2), row):
        buf.append(item)
    obs = obs2
    recent.append(r.mean())
    if t < 20:
        continue
    pick = rng.integers(0, len(buf_o), 12)
    o, act, o2 = (torch.cat([b[k] for k in pick]) for b in (buf_o, buf_a, buf_o2))
    rew = torch.cat([buf_r[k] for k in pick])
    alpha = log_alpha.exp()
    with torch.no_grad():
        a2, logp_a2 = pi(o2)
        x2 = torch.cat([o2, a2], 1)
        q_pi_targ = torch.min(q1_targ(x2), q2_targ(x2)).squeeze(1)
        backup = rew + gamma * (q_pi_targ - alpha * logp_a2)
    x = torch.cat([o, act], 1)
    loss_q = F.mse_loss(q1(x).squeeze(1), backup) + F.mse_loss(q2(x).squeeze(1), backup)
    q_opt.zero_grad()
    loss_q.backward()
    q_opt.step()
    for p in q_params:
        p.requires_grad = False
    a_new, logp = pi(o)
    x_new = torch.cat([o, a_new], 1)
    loss_pi = (alpha.detach() * logp - torch.min(q1(x_new), q2(x_new)).squeeze(1)).mean()
    pi_opt.zero_grad()
    loss_pi.backward()
    pi_opt.step()
    for p in q_params:
        p.requires_grad = True
    alpha_loss = -(log_alpha * (logp.detach() + target_entropy)).mean()
    alpha_opt.zero_grad()
    alpha_loss.backward()
    alpha_opt.step()
    with torch.no_grad():
        for p, p_targ in zip(q_params, itertools.chain(q1_targ.parameters(), q2_targ.parameters())):
            p_targ.mul_(rho).add_((1 - rho) * p)
    if t % 50 == 49:
        print(f"t {t + 1} reward {np.mean(recent[-50:]):.3f} loss_q {loss_q.item():.3f} "
              f"alpha {alpha.item():.3f} entropy {-logp.mean().item():.2f}")
