import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
from torch.distributions import Normal

torch.manual_seed(4)
np.random.seed(4)
env = gym.make("Pendulum-v1")

actor_mean = nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 1))
actor_logstd = nn.Parameter(torch.tensor([0.4]))
critic = nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 1))
opt = torch.optim.Adam([*actor_mean.parameters(), actor_logstd, *critic.parameters()], lr=1e-3)


def policy(s):
    return Normal(actor_mean(s), actor_logstd.exp().expand(s.shape[0], 1))


@torch.no_grad()
def collect(obs, n):
    data = []
    for _ in range(n):
        s = torch.as_tensor(obs, dtype=torch.float32).unsqueeze(0)
        d = policy(s)
        u = d.sample()
        # torque limits of the motor
        a = u.clamp(-2.0, 2.0)  # expect: clipped-action
        logp = d.log_prob(a).sum(-1)
        obs2, r, term, trunc, _ = env.step(a[0].numpy())
        s2 = torch.as_tensor(obs2, dtype=torch.float32).unsqueeze(0)
        data.append((s, a, logp, (r + 8.0) / 8.0, s2, term, trunc))
        obs = env.reset()[0] if term or trunc else obs2
    return obs, data


@torch.no_grad()
def gae(data, gamma=0.95, lam=0.9):
    adv, running = [], 0.0
    for s, a, lp, r, s2, term, trunc in reversed(data):
        delta = r + gamma * (0.0 if term else critic(s2).item()) - critic(s).item()
        if term or trunc:
            running = 0.0
        running = delta + gamma * lam * running
        adv.append(running)
    return torch.tensor(adv[::-1])


obs, _ = env.reset(seed=4)
for update in range(5):
    obs, data = collect(obs, 400)
    S = torch.cat([d[0] for d in data])
    A = torch.cat([d[1] for d in data])
    OLD = torch.cat([d[2] for d in data])
    ADV = gae(data)
    with torch.no_grad():
        RET = ADV + critic(S).squeeze(-1)
    for _ in range(5):
        for ix in torch.randperm(len(S)).chunk(5):
            d = policy(S[ix])
            ratio = (d.log_prob(A[ix]).sum(-1) - OLD[ix]).exp()
            adv = (ADV[ix] - ADV[ix].mean()) / (ADV[ix].std() + 1e-8)
            surr = torch.min(ratio * adv, ratio.clamp(0.8, 1.2) * adv).mean()
            v_loss = (critic(S[ix]).squeeze(-1) - RET[ix]).pow(2).mean()
            loss = -surr + 0.5 * v_loss - 0.001 * d.entropy().mean()
            opt.zero_grad()
            loss.backward()
            opt.step()
    frac = (A.abs() >= 2).float().mean().item()
    print(update, "reward", round(np.mean([d[3] for d in data]), 3), "v_loss", round(v_loss.item(), 3),
          "std", round(actor_logstd.exp().item(), 3), "at limit", round(frac, 3))
