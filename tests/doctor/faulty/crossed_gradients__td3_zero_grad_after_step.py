import copy
from collections import deque
import random

import numpy as np
import torch
import torch.nn as nn
import gymnasium as gym


class Args:
    seed = 5
    gamma = 0.98
    tau = 0.01
    policy_noise = 0.1
    noise_clip = 0.25
    policy_freq = 2
    start = 150
    total = 500
    batch = 64


args = Args()
random.seed(args.seed)
np.random.seed(args.seed)
torch.manual_seed(args.seed)
env = gym.make("Pendulum-v1")
MAX_A = 2.0


class Actor(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(3, 64)
        self.fc2 = nn.Linear(64, 1)

    def forward(self, s):
        return MAX_A * torch.tanh(self.fc2(torch.relu(self.fc1(s))))


class TwinQ(nn.Module):
    def __init__(self):
        super().__init__()
        self.q1 = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 1))
        self.q2 = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, s, a):
        sa = torch.cat([s, a], 1)
        return self.q1(sa), self.q2(sa)


actor, critic = Actor(), TwinQ()
actor_t, critic_t = copy.deepcopy(actor), copy.deepcopy(critic)
a_optim = torch.optim.Adam(actor.parameters(), lr=1e-3)
c_optim = torch.optim.Adam(critic.parameters(), lr=1e-3)
buf = deque(maxlen=10000)


def sample():
    s, a, r, s2, d = zip(*random.sample(buf, args.batch))
    f = lambda z: torch.tensor(np.array(z), dtype=torch.float32)
    return f(s), f(a), f(r).unsqueeze(1), f(s2), f(d).unsqueeze(1)


obs, _ = env.reset(seed=args.seed)
for it in range(args.total):
    if it < args.start:
        act = env.action_space.sample()
    else:
        with torch.no_grad():
            act = actor(torch.as_tensor(obs).unsqueeze(0))[0].numpy()
        act = (act + np.random.normal(0, 0.2, size=1)).clip(-MAX_A, MAX_A).astype(np.float32)
    nobs, rew, term, trunc, _ = env.step(act)
    buf.append((obs, act, rew / 10.0, nobs, float(term)))
    obs = nobs
    if term or trunc:
        obs, _ = env.reset()
    if it < args.start:
        continue

    s, a, r, s2, d = sample()
    with torch.no_grad():
        noise = (torch.randn_like(a) * args.policy_noise).clamp(-args.noise_clip, args.noise_clip)
        a2 = (actor_t(s2) + noise).clamp(-MAX_A, MAX_A)
        tq1, tq2 = critic_t(s2, a2)
        target = r + args.gamma * (1 - d) * torch.min(tq1, tq2)
    q1, q2 = critic(s, a)
    c_loss = ((q1 - target) ** 2).mean() + ((q2 - target) ** 2).mean()
    c_loss.backward()
    c_optim.step()
    c_optim.zero_grad()

    if it % args.policy_freq == 0:
        a_loss = -critic(s, actor(s))[0].mean()
        a_loss.backward()  # expect: crossed-gradients
        a_optim.step()
        a_optim.zero_grad()
        for src, dst in ((actor, actor_t), (critic, critic_t)):
            for p, pt in zip(src.parameters(), dst.parameters()):
                pt.data.copy_(args.tau * p.data + (1 - args.tau) * pt.data)
    if it % 100 == 0:
        print("it", it, "critic loss", c_loss.item())
env.close()
