# PPO for MountainCarContinuous-like push task; rollouts kept in Python lists
import numpy as np
import torch
import torch.nn as nn
from torch.distributions import Normal

np.random.seed(8)
torch.manual_seed(8)

gamma, lam, clip_eps = 0.95, 0.9, 0.2


def layer_init(layer, std=np.sqrt(2)):
    nn.init.orthogonal_(layer.weight, std)
    nn.init.zeros_(layer.bias)
    return layer


actor = nn.Sequential(layer_init(nn.Linear(2, 32)), nn.Tanh(), layer_init(nn.Linear(32, 1), std=0.01))
critic = nn.Sequential(layer_init(nn.Linear(2, 32)), nn.Tanh(), layer_init(nn.Linear(32, 1), std=1.0))
logstd = nn.Parameter(torch.zeros(1))
optimizer = torch.optim.Adam([*actor.parameters(), *critic.parameters(), logstd], lr=1e-3, eps=1e-5)


def dist_for(x):
    return Normal(actor(x), logstd.clamp(-1.5, 0.3).exp())


def env_reset():
    return np.array([np.random.uniform(-1, 1), 0.0], dtype=np.float32)


def env_step(s, a):
    vel = 0.9 * s[1] + 0.2 * a
    pos = s[0] + 0.3 * vel
    return np.array([pos, vel], dtype=np.float32), -(pos ** 2) - 0.01 * a * a


for update in range(12):
    obs, acts, logps, rews, vals, advs, rets = [], [], [], [], [], [], []
    for _ in range(6):
        s = env_reset()
        ep_r, ep_v = [], []
        for t in range(25):
            x = torch.from_numpy(s)
            with torch.no_grad():
                d = dist_for(x)
                a = d.sample().numpy()
                a = np.clip(a, -1.0, 1.0)  # expect: clipped-action
                logp = d.log_prob(torch.from_numpy(a)).sum().item()
                v = critic(x).item()
            obs.append(s)
            acts.append(a)
            logps.append(logp)
            s, r = env_step(s, float(a[0]))
            ep_r.append(r)
            ep_v.append(v)
        with torch.no_grad():
            ep_v.append(critic(torch.from_numpy(s)).item())
        g, ep_adv = 0.0, [0.0] * len(ep_r)
        for t in reversed(range(len(ep_r))):
            g = ep_r[t] + gamma * ep_v[t + 1] - ep_v[t] + gamma * lam * g
            ep_adv[t] = g
        advs += ep_adv
        rets += [a_ + v_ for a_, v_ in zip(ep_adv, ep_v)]
        rews.append(sum(ep_r))

    B_obs, B_act = torch.from_numpy(np.stack(obs)), torch.from_numpy(np.stack(acts))
    B_logp, B_adv, B_ret = (torch.tensor(z, dtype=torch.float32) for z in (logps, advs, rets))
    for epoch in range(5):
        for idx in torch.randperm(len(B_obs)).split(50):
            new_logp = dist_for(B_obs[idx]).log_prob(B_act[idx]).sum(-1)
            ratio = (new_logp - B_logp[idx]).exp()
            adv = (B_adv[idx] - B_adv[idx].mean()) / (B_adv[idx].std() + 1e-8)
            pg = -torch.min(ratio * adv, ratio.clamp(1 - clip_eps, 1 + clip_eps) * adv).mean()
            vf = (critic(B_obs[idx]).squeeze(-1) - B_ret[idx]).pow(2).mean()
            optimizer.zero_grad()
            (pg + 0.5 * vf).backward()
            nn.utils.clip_grad_norm_([*actor.parameters(), *critic.parameters(), logstd], 0.5)
            optimizer.step()
    print(f"update {update} mean return {np.mean(rews):.3f} std {logstd.exp().item():.3f}")
