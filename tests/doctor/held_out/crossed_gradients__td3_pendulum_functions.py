# TD3 single file, functions and module level state
from copy import deepcopy
from itertools import chain

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

SEED, STEPS, START, BATCH = 0, 900, 150, 64
GAMMA, TAU, P_NOISE, N_CLIP, DELAY = 0.98, 0.01, 0.2, 0.5, 2
torch.manual_seed(SEED)
np.random.seed(SEED)


def net(sizes, out=nn.Identity):
    mods = []
    for k in range(len(sizes) - 1):
        mods += [nn.Linear(sizes[k], sizes[k + 1]), nn.ReLU() if k < len(sizes) - 2 else out()]
    return nn.Sequential(*mods)


pi = net([3, 64, 64, 1], nn.Tanh)
qa, qb = net([4, 64, 64, 1]), net([4, 64, 64, 1])
pi_t, qa_t, qb_t = deepcopy(pi), deepcopy(qa), deepcopy(qb)
pi_opt = torch.optim.Adam(pi.parameters(), lr=1e-3)
q_opt = torch.optim.Adam(chain(qa.parameters(), qb.parameters()), lr=1e-3)

store = {k: [] for k in ("s", "a", "r", "s2", "d")}


def sample():
    ix = np.random.randint(0, len(store["s"]), BATCH)
    return (torch.tensor(np.array([store[k][i] for i in ix]), dtype=torch.float32) for k in store)


def soft(src, dst):
    with torch.no_grad():
        for p, q in zip(src.parameters(), dst.parameters()):
            q += TAU * (p - q)


def update(it):
    s, a, r, s2, d = sample()
    with torch.no_grad():
        eps = (torch.randn_like(a) * P_NOISE).clamp(-N_CLIP, N_CLIP)
        x2 = torch.cat([s2, (pi_t(s2) + eps).clamp(-1, 1)], -1)
        y = r + GAMMA * (1 - d) * torch.minimum(qa_t(x2), qb_t(x2))
    x = torch.cat([s, a], -1)
    q_loss = F.mse_loss(qa(x), y) + F.mse_loss(qb(x), y)
    q_opt.zero_grad()
    q_loss.backward()

    pi_loss = None
    if it % DELAY == 0:
        pi_loss = -qa(torch.cat([s, pi(s)], -1)).mean()
        pi_opt.zero_grad()
        pi_loss.backward()  # expect: crossed-gradients
        pi_opt.step()
        soft(pi, pi_t)
        soft(qa, qa_t)
        soft(qb, qb_t)
    nn.utils.clip_grad_norm_(chain(qa.parameters(), qb.parameters()), 5.0)
    q_opt.step()
    return q_loss.item(), None if pi_loss is None else pi_loss.item()


env = gym.make("Pendulum-v1")
s, _ = env.reset(seed=SEED)
ep_ret = 0
for t in range(STEPS):
    with torch.no_grad():
        a = pi(torch.from_numpy(s)).numpy()
    a = np.clip(a + np.random.normal(0, 0.2, 1), -1, 1) if t > START else np.random.uniform(-1, 1, 1)
    s2, r, terminated, truncated, _ = env.step(2.0 * a)
    for k, v in zip(store, (s, a, [r * 0.1], s2, [float(terminated)])):
        store[k].append(v)
    s = s2
    ep_ret += r
    if t > START:
        log = update(t)
    if terminated or truncated:
        print(t, round(float(ep_ret), 1), log)
        s, _ = env.reset()
        ep_ret = 0
