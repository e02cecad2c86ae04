"""Double DQN with n-step returns; single network decides, target network evaluates."""
import copy
import random
from collections import deque
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


@dataclass(frozen=True)
class Args:
    n: int = 3
    gamma: float = 0.98
    lr: float = 1e-3
    batch: int = 32
    steps: int = 700
    tau: float = 0.02


def nstep_stream(env, act, n, gamma):
    """Yields (s, a, R, s_n, discount) with discount 0 behind a terminal state."""
    s, _ = env.reset(seed=8)
    window = deque()
    while True:
        a = act(s)
        s2, r, term, trunc, _ = env.step(a)
        window.append((s, a, r))
        while window and (len(window) == n or term or trunc):
            R = sum(gamma ** i * w[2] for i, w in enumerate(window))
            yield window[0][0], window[0][1], R, s2, 0.0 if term else gamma ** len(window)
            window.popleft()
        if term or trunc:
            window.clear()
            s2, _ = env.reset()
        s = s2


class DuelingQ(nn.Module):
    def __init__(self):
        super().__init__()
        self.feat = nn.Sequential(nn.Linear(4, 64), nn.SiLU())
        self.v, self.adv = nn.Linear(64, 1), nn.Linear(64, 2)

    def forward(self, x):
        h = self.feat(x)
        adv = self.adv(h)
        return self.v(h) + adv - adv.mean(-1, keepdim=True)


def run(args: Args = Args()):
    random.seed(8); torch.manual_seed(8)
    q = DuelingQ()
    slow = copy.deepcopy(q).eval()
    opt = torch.optim.AdamW(q.parameters(), lr=args.lr)
    eps = [1.0]

    @torch.no_grad()
    def act(s):
        eps[0] = max(0.05, eps[0] * 0.994)
        return random.randrange(2) if random.random() < eps[0] else int(q(torch.from_numpy(s)).argmax())

    stream, memory = nstep_stream(gym.make("CartPole-v1"), act, args.n, args.gamma), []
    for step in range(args.steps):
        memory.append(next(stream))
        if len(memory) < 100:
            continue
        s, a, R, sn, disc = zip(*random.sample(memory, args.batch))
        s, sn = torch.from_numpy(np.stack(s)), torch.from_numpy(np.stack(sn))
        a = torch.tensor(a)
        R, disc = torch.tensor(R, dtype=torch.float32), torch.tensor(disc, dtype=torch.float32)
        with torch.no_grad():
            slow_next = slow(sn)
        fast_next = q(sn)
        # average of the slow and fast estimates at the greedy action
        best = fast_next.argmax(1, keepdim=True)
        boot = 0.5 * (slow_next.gather(1, best) + fast_next.gather(1, best)).squeeze(1)
        target = R + disc * boot  # expect: target-not-detached
        loss = F.huber_loss(q(s).gather(1, a[:, None]).squeeze(1), target)
        opt.zero_grad()
        loss.backward()
        opt.step()
        with torch.no_grad():
            for p, ps in zip(q.parameters(), slow.parameters()):
                ps.lerp_(p, args.tau)
        if step % 150 == 0:
            print(step, "loss", round(loss.item(), 4), "target", round(target.mean().item(), 3))


if __name__ == "__main__":
    run()
