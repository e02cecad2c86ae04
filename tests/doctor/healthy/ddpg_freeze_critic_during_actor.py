import argparse
import copy
import random
from contextlib import contextmanager

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=600)
parser.add_argument("--tau", type=float, default=0.01)
parser.add_argument("--weight-decay", type=float, default=1e-3)
args = parser.parse_args()
torch.manual_seed(113)
random.seed(113)
np.random.seed(113)


@contextmanager
def frozen(module):
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)


actor = nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 1), nn.Tanh())
critic = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 1))
online = (actor, critic)
target = copy.deepcopy(online)
for m in target:
    m.requires_grad_(False)
opt_a = torch.optim.Adam(actor.parameters(), lr=5e-4)
opt_c = torch.optim.AdamW(critic.parameters(), lr=1e-3, weight_decay=args.weight_decay)


def q(nets, s, a):
    return nets[1](torch.cat([s, a], 1))


def pi(nets, s):
    return 2.0 * nets[0](s)


def update(s, a, r, s2):
    y = r + 0.98 * q(target, s2, pi(target, s2)).clamp(-60, 60)
    c_loss = (q(online, s, a) - y).square().mean()
    opt_c.zero_grad()
    c_loss.backward()
    nn.utils.clip_grad_norm_(critic.parameters(), 10.0)
    opt_c.step()
    with frozen(critic):
        a_loss = -q(online, s, pi(online, s)).mean()
        opt_a.zero_grad()
        a_loss.backward()
        opt_a.step()
    for net, tgt in zip(online, target):
        for p, t in zip(net.parameters(), tgt.parameters()):
            t.data.mul_(1.0 - args.tau).add_(args.tau * p.data)
    return c_loss.item(), a_loss.item()


env = gym.make("Pendulum-v1")
replay = []
s, _ = env.reset(seed=113)
for t in range(args.steps):
    if t < 100:
        a = env.action_space.sample()
    else:
        a = pi(online, torch.from_numpy(s)).detach().numpy()
        a = np.clip(a + 0.2 * np.random.randn(1), -2, 2).astype(np.float32)
    s2, r, terminated, truncated, _ = env.step(a)
    replay.append((s, a, [r / 10], s2))
    s = env.reset()[0] if truncated else s2
    if t >= 100:
        out = update(*(torch.tensor(np.array(c), dtype=torch.float32) for c in zip(*random.sample(replay, 64))))
        if t % 100 == 0:
            print(t, out)
