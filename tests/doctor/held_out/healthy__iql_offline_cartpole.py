import gymnasium as gym
import numpy as np
import torch
from torch import nn
import torch.nn.functional as F

torch.manual_seed(0)
rng = np.random.default_rng(0)


def collect(steps):
    """half-sensible behaviour policy; returns a dict of arrays"""
    env = gym.make("CartPole-v1")
    rows, (o, _) = [], env.reset(seed=0)
    for _ in range(steps):
        a = int(o[2] + 0.5 * o[3] > 0) if rng.random() < 0.6 else int(rng.integers(2))
        o2, r, term, trunc, _ = env.step(a)
        rows.append((o, a, 0.1 * r, o2, not term))
        o = env.reset()[0] if term or trunc else o2
    cols = [np.array(c) for c in zip(*rows)]
    return dict(zip(("obs", "act", "rew", "next", "cont"), cols))


def net(out):
    return nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, out))


data = {k: torch.as_tensor(v).float() if k != "act" else torch.as_tensor(v) for k, v in collect(2500).items()}
mean, std = data["obs"].mean(0), data["obs"].std(0)
for k in ("obs", "next"):
    data[k] = (data[k] - mean) / std
q, qt, v, pi = net(2), net(2), net(1), net(2)
qt.load_state_dict(q.state_dict())
opts = [torch.optim.Adam(m.parameters(), lr=1e-3) for m in (q, v, pi)]
for it in range(500):
    ix = torch.from_numpy(rng.integers(0, 2500, 128))
    b = {k: t[ix] for k, t in data.items()}
    act = b["act"].unsqueeze(1)
    with torch.no_grad():
        qa = qt(b["obs"]).gather(1, act)
        y = b["rew"].unsqueeze(1) + 0.95 * b["cont"].unsqueeze(1) * v(b["next"])
    vb = v(b["obs"])
    diff = qa - vb
    expectile = torch.where(diff > 0, 0.8, 0.2)
    loss_v = (expectile * diff.square()).mean()
    loss_q = F.mse_loss(q(b["obs"]).gather(1, act), y)
    weight = (5.0 * diff.detach()).exp().clamp(max=20.0)
    loss_pi = (weight.squeeze(1) * F.cross_entropy(pi(b["obs"]), b["act"], reduction="none")).mean()
    for o in opts:
        o.zero_grad()
    (loss_v + loss_q + loss_pi).backward()          # three disjoint graphs
    for o in opts:
        o.step()
    with torch.no_grad():
        torch._foreach_lerp_(list(qt.parameters()), list(q.parameters()), 0.02)
    if it % 100 == 0:
        print(it, "v", round(loss_v.item(), 4), "q", round(loss_q.item(), 4), "pi", round(loss_pi.item(), 4), "mean v", round(vb.mean().item(), 2))
env = gym.make("CartPole-v1", max_episode_steps=200)
scores = []
for seed in range(5):
    o, _ = env.reset(seed=seed)
    n, over = 0, False
    while not over:
        with torch.no_grad():
            a = pi((torch.from_numpy(o) - mean) / std).argmax().item()
        o, _, term, trunc, _ = env.step(a)
        n, over = n + 1, term or trunc
    scores.append(n)
print("greedy episodes", scores)
