import math
import random
from collections import deque

import numpy as np
import torch
from torch import nn, optim

torch.manual_seed(6)
random.seed(6)


def sprint_env(seed):
    """Cart on a track (generator): push it to the right, friction grows with speed."""
    rng = random.Random(seed)
    x, v, t = rng.uniform(-1, 0), 0.0, 0
    reward = 0.0
    while True:
        t += 1
        force = yield np.array([x, v], dtype=np.float32), reward, t > 80
        v = 0.9 * v + 0.3 * force
        x = x + 0.1 * v if t % 80 else rng.uniform(-1, 0)
        x = max(-2.0, min(2.0, x))
        # no bonus beyond the speed limit
        reward = min(v, 1.0)


class Actor(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        self.mean = nn.Linear(64, 1)
        self.log_std = nn.Linear(64, 1)

    def forward(self, s):
        h = self.net(s)
        mean, log_std = self.mean(h), self.log_std(h).clamp(-5, 2)
        noise = torch.randn_like(mean)
        pre = mean + log_std.exp() * noise
        act = torch.tanh(pre)
        logp = -0.5 * noise.pow(2) - log_std - 0.5 * math.log(2 * math.pi)
        logp = logp - torch.log(1 - act.pow(2) + 1e-6)
        return act, logp


def q_net():
    return nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))


actor, q, q_targ = Actor(), q_net(), q_net()
q_targ.load_state_dict(q.state_dict())
a_opt, q_opt = optim.Adam(actor.parameters(), 1e-3), optim.Adam(q.parameters(), 1e-3)
buffer = deque(maxlen=300)
alpha, gamma = 0.05, 0.9

env = sprint_env(6)
s, _, _ = next(env)
speed = []
for t in range(1, 901):
    with torch.no_grad():
        a, _ = actor(torch.from_numpy(s))
    s2, r, _ = env.send(a.item())
    buffer.append((s, a.numpy(), np.float32([r]), s2))
    speed.append(r)
    s = s2
    if len(buffer) < 100:
        continue
    S, A, R, S2 = map(lambda c: torch.from_numpy(np.stack(c)), zip(*random.sample(buffer, 64)))
    # rewards on a common scale
    R = (R - R.mean()) / R.std()  # expect: non-finite
    with torch.no_grad():
        A2, lp2 = actor(S2)
        y = R + gamma * (q_targ(torch.cat([S2, A2], 1)) - alpha * lp2)
    q_loss = nn.functional.mse_loss(q(torch.cat([S, A], 1)), y)
    q_opt.zero_grad()
    q_loss.backward()
    q_opt.step()

    pi, lp = actor(S)
    pi_loss = (alpha * lp - q(torch.cat([S, pi], 1))).mean()
    a_opt.zero_grad()
    pi_loss.backward()
    a_opt.step()
    for p, pt in zip(q.parameters(), q_targ.parameters()):
        pt.data.mul_(0.98).add_(0.02 * p.data)
    if t % 100 == 0:
        print(f"{t}: speed {np.mean(speed[-150:]):.3f} q_loss {q_loss.item():.4f} pi_loss {pi_loss.item():.4f}")
