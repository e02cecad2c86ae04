import argparse
from collections import deque

import numpy as np
import torch
import torch.nn as nn

parser = argparse.ArgumentParser()
parser.add_argument("--episodes", type=int, default=40)
parser.add_argument("--lr", type=float, default=2e-3)
parser.add_argument("--batch-size", type=int, default=32)
parser.add_argument("--sync", type=int, default=40)
args = parser.parse_args()

rng = np.random.default_rng(0)
torch.manual_seed(0)


class Lander:
    """1-d lander: height, speed, fuel; thrust on or off."""

    def reset(self):
        self.state = np.array([rng.uniform(0.6, 1.0), 0.0, 1.0], dtype=np.float32)
        return self.state.copy()

    def step(self, thrust):
        h, v, fuel = self.state
        push = 0.02 if (thrust and fuel > 0) else 0.0
        v = v - 0.01 + push
        h = h + v
        fuel = max(0.0, fuel - 0.04 * thrust)
        self.state = np.array([h, v, fuel], dtype=np.float32)
        if h <= 0:
            return self.state.copy(), float(1.0 - 20 * abs(v)), True
        return self.state.copy(), -0.01 - (1.0 if h > 1.5 else 0.0), bool(h > 1.5)


def build():
    return nn.Sequential(nn.Linear(3, 48), nn.ReLU(), nn.Linear(48, 2))


q_net, q_target = build(), build()
q_target.load_state_dict(q_net.state_dict())
for p in q_target.parameters():
    p.requires_grad_(False)
optimizer = torch.optim.Adam(q_net.parameters(), lr=args.lr)
replay = deque(maxlen=3000)
env, updates, eps = Lander(), 0, 1.0


def train_batch():
    picks = rng.integers(0, len(replay), args.batch_size)
    s, a, r, s2, d = zip(*[replay[i] for i in picks])
    s, s2 = torch.tensor(np.stack(s)), torch.tensor(np.stack(s2))
    a, r, d = torch.tensor(a), torch.tensor(r, dtype=torch.float32), torch.tensor(d, dtype=torch.float32)
    q = q_net(s)[torch.arange(len(a)), a]
    target = r + 0.98 * (1.0 - d) * q_target(s2).max(dim=1).values
    loss = nn.functional.mse_loss(q, target)
    loss.backward()
    optimizer.step()  # expect: missing-zero-grad
    return loss.item()


for episode in range(args.episodes):
    s, done, total = env.reset(), False, 0.0
    while not done:
        if rng.random() < eps:
            a = int(rng.integers(2))
        else:
            with torch.no_grad():
                a = int(q_net(torch.from_numpy(s)).argmax())
        s2, r, done = env.step(a)
        replay.append((s, a, r, s2, done))
        s, total = s2, total + r
        if len(replay) > 64:
            loss = train_batch()
            updates += 1
            if updates % args.sync == 0:
                q_target.load_state_dict(q_net.state_dict())
    eps = max(0.05, eps * 0.9)
    if episode % 10 == 9:
        print(f"episode {episode + 1}: return {total:.2f}, loss {loss:.4f}, updates {updates}")
