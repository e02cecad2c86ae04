"""PPO on MountainCarContinuous: shared encoder kept in a dict together with the two heads."""
import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.distributions import Normal

torch.manual_seed(6)
np.random.seed(6)
env = gym.make("MountainCarContinuous-v0")
NUM_STEPS, EPOCHS, MINIBATCH, CLIP = 200, 5, 50, 0.2

modules = {
    "encoder": nn.Sequential(nn.Linear(2, 32), nn.Tanh()),
    "mean": nn.Linear(32, 1),
    "value": nn.Linear(32, 1),
}
log_std = nn.Parameter(torch.tensor([-0.3]))
optimizer = torch.optim.Adam([*modules["mean"].parameters(), *modules["value"].parameters(), log_std], lr=1e-3)  # expect: optimizer-mismatch


def encode(x):
    return modules["encoder"](x * torch.tensor([1.0, 15.0]))


def dist_and_value(x):
    h = encode(x)
    return Normal(modules["mean"](h), log_std.clamp(-2, 0.5).exp()), modules["value"](h).squeeze(-1)


@torch.no_grad()
def collect(obs):
    rows = []
    for _ in range(NUM_STEPS):
        x = torch.as_tensor(obs, dtype=torch.float32)
        d, v = dist_and_value(x)
        a = d.sample()
        nxt, r, term, trunc, _ = env.step(a.clamp(-1, 1).numpy())
        shaped = r + 10 * abs(float(nxt[1]))
        _, v2 = dist_and_value(torch.as_tensor(nxt, dtype=torch.float32))
        rows.append((x, a, d.log_prob(a).sum(-1), v, shaped, 0.0 if term else v2.item(), term or trunc))
        obs = env.reset()[0] if term or trunc else nxt
    return obs, rows


def gae(rows, gamma=0.98, lam=0.9):
    adv, last = [], 0.0
    for *_, v, r, v2, cut in reversed(rows):
        last = r + gamma * v2 - v.item() + (0.0 if cut else gamma * lam * last)
        adv.insert(0, last)
    return torch.tensor(adv, dtype=torch.float32)


obs, _ = env.reset(seed=6)
for update in range(8):
    obs, rows = collect(obs)
    x, a, old_logp, v_old = (torch.stack([row[k] for row in rows]) for k in range(4))
    adv = gae(rows)
    ret = adv + v_old
    adv = (adv - adv.mean()) / (adv.std() + 1e-8)
    for _ in range(EPOCHS):
        for idx in torch.randperm(NUM_STEPS).split(MINIBATCH):
            d, v = dist_and_value(x[idx])
            ratio = (d.log_prob(a[idx]).sum(-1) - old_logp[idx]).exp()
            pg = -torch.min(ratio * adv[idx], ratio.clamp(1 - CLIP, 1 + CLIP) * adv[idx]).mean()
            loss = pg + 0.5 * (v - ret[idx]).pow(2).mean() - 0.001 * d.entropy().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    print(update, pg.item(), (v - ret[idx]).pow(2).mean().item())
