"""REINFORCE with a learned baseline. Episodes are stopped by us after H steps; the clock is part of the input,
so the stop is a real end of the (finite-horizon) task."""
import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn

torch.manual_seed(3)
H, B, REPEAT = 25, 3, 4
env = gym.make("Acrobot-v1").unwrapped


def feel(o, k):
    return np.append(o / [1, 1, 1, 1, 6, 10], k / H).astype(np.float32)


def run(policy, seed):
    o, _ = env.reset(seed=seed)
    path = []
    for k in range(H):
        x = feel(o, k)
        with torch.no_grad():
            p = policy(torch.from_numpy(x)).softmax(-1).numpy().astype(np.float64)
        a = np.random.choice(3, p=p / p.sum())
        gain, over = 0.0, False
        for _ in range(REPEAT):
            o, _, over, _, _ = env.step(a)
            gain += (-o[0] - (o[0] * o[2] - o[1] * o[3])) / (2 * H * REPEAT) * 10     # height of the tip
            if over:
                gain += 2.0
                break
        path.append((x, a, gain))
        if over:
            break
    return path


np.random.seed(3)
policy = nn.Sequential(nn.Linear(7, 32), nn.Tanh(), nn.Linear(32, 3))
baseline = nn.Sequential(nn.Linear(7, 32), nn.Tanh(), nn.Linear(32, 1))
opt = torch.optim.Adam([*policy.parameters(), *baseline.parameters()], lr=1e-2)
curve = []
for it in range(64):
    xs, acts, tails = [], [], []
    for b in range(B):
        path = run(policy, 1000 * it + b)
        gains = np.array([g for _, _, g in path])
        tails.append(gains[::-1].cumsum()[::-1])
        xs += [x for x, _, _ in path]
        acts += [a for _, a, _ in path]
        curve.append(gains.sum())
    X = torch.from_numpy(np.stack(xs))
    A = torch.tensor(acts)
    G = torch.tensor(np.concatenate(tails), dtype=torch.float32)
    b = baseline(X).squeeze(-1)
    adv = G - b.detach()
    adv = adv / (adv.std() + 1e-6)
    nll = nn.functional.cross_entropy(policy(X), A, reduction="none")
    logits = policy(X)
    ent = -(logits.softmax(1) * logits.log_softmax(1)).sum(1).mean()
    loss = (nll * adv).mean() + (b - G).square().mean() - 0.01 * ent
    opt.zero_grad()
    loss.backward()
    opt.step()
    if it % 15 == 14:
        print(it, "mean return of the last 30 runs", np.mean(curve[-30:]), "entropy", ent.item())
