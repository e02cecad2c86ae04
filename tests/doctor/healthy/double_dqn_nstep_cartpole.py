import random
from collections import deque
import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn


class NStep:
    def __init__(self, n, gamma):
        self.n, self.gamma, self.q = n, gamma, deque()

    def push(self, s, a, r, s2, term, over):
        """returns finished n-step transitions (s, a, G, s_n, gamma^k * nonterminal)"""
        self.q.append((s, a, r))
        out = []
        while self.q and (len(self.q) == self.n or over):
            g = sum(self.gamma ** i * x[2] for i, x in enumerate(self.q))
            k = len(self.q)
            s0, a0, _ = self.q.popleft()
            out.append((s0, a0, g, s2, 0.0 if term else self.gamma ** k))
        return out


def q_network():
    return nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))


def main(seed=10):
    random.seed(seed); np.random.seed(seed); torch.manual_seed(seed)
    env = gym.make("CartPole-v1")
    q, q_old = q_network(), q_network()
    q_old.load_state_dict(q.state_dict())
    opt = torch.optim.Adam(q.parameters(), lr=5e-4)
    nstep, mem = NStep(3, 0.98), deque(maxlen=10000)
    updates, lens = 0, []
    for ep in range(70):
        s, _ = env.reset(seed=seed + ep)
        over, n = False, 0
        while not over:
            if random.random() < max(0.05, 1 - ep / 35):
                a = env.action_space.sample()
            else:
                with torch.no_grad():
                    a = q(torch.from_numpy(s)).argmax().item()
            s2, r, term, trunc, _ = env.step(a)
            over = term or trunc
            mem.extend(nstep.push(s, a, r, s2, term, over))
            s, n = s2, n + 1
            if len(mem) < 250:
                continue
            S, A, G, SN, DISC = zip(*random.sample(mem, 32))
            S, SN = torch.from_numpy(np.stack(S)), torch.from_numpy(np.stack(SN))
            A, G, DISC = torch.tensor(A), torch.tensor(G, dtype=torch.float32), torch.tensor(DISC, dtype=torch.float32)
            with torch.no_grad():
                choice = q(SN).argmax(dim=1, keepdim=True)
                target = G + DISC * q_old(SN).gather(1, choice).squeeze(1)
            loss = nn.functional.smooth_l1_loss(q(S).gather(1, A.unsqueeze(1)).squeeze(1), target)
            opt.zero_grad()
            loss.backward()
            nn.utils.clip_grad_value_(q.parameters(), 1.0)
            opt.step()
            updates += 1
            if updates % 150 == 0:
                q_old.load_state_dict(q.state_dict())
        lens.append(n)
        if ep % 14 == 13:
            print("episode", ep + 1, "length", sum(lens[-14:]) / 14)


main()
