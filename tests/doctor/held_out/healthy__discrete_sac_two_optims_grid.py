import math
import random
from collections import defaultdict

import torch
import torch.nn as nn

random.seed(6)
torch.manual_seed(6)


class Maze:
    rows = ["S..#.",
            ".#...",
            ".#.#.",
            "...#G"]

    def restart(self):
        self.r, self.c = random.choice([(i, j) for i, row in enumerate(self.rows) for j, x in enumerate(row) if x in "S."])
        return self.r * 5 + self.c

    def walk(self, a):
        """-> next state, reward, whether the goal was reached"""
        r, c = self.r + (a == 1) - (a == 0), self.c + (a == 3) - (a == 2)
        if 0 <= r < 4 and 0 <= c < 5 and self.rows[r][c] != "#":
            self.r, self.c = r, c
        won = self.rows[self.r][self.c] == "G"
        return self.r * 5 + self.c, (1.0 if won else -0.05), won


class Table(nn.Module):
    def __init__(self):
        super().__init__()
        self.e = nn.Embedding(20, 24)
        self.m = nn.Sequential(nn.Linear(24, 48), nn.Tanh(), nn.Linear(48, 4))

    def forward(self, s):
        return self.m(self.e(s))


pi, q1, q2, t1, t2 = (Table() for _ in range(5))
for a, b in ((t1, q1), (t2, q2)):
    a.load_state_dict(b.state_dict())
log_alpha = torch.tensor(math.log(0.02), requires_grad=True)
opt_pi = torch.optim.Adam([{"params": pi.parameters()}, {"params": [log_alpha], "lr": 8e-3}], lr=2e-3)
opt_q = torch.optim.Adam([*q1.parameters(), *q2.parameters()], lr=2e-3)
TARGET_H = 0.4 * math.log(4)
mem = defaultdict(list)
env = Maze()
s, wins, since = env.restart(), [], 0
for step in range(1400):
    with torch.no_grad():
        a = torch.multinomial(pi(torch.tensor([s])).softmax(1), 1).item()
    if step < 400 or random.random() < 0.15:
        a = random.randrange(4)          # off-policy anyway
    s2, r, won = env.walk(a)
    for k, v in dict(s=s, a=a, r=r, s2=s2, alive=not won).items():
        mem[k].append(v)
    since += 1
    s = s2
    if won:
        wins.append(since)
        s, since = env.restart(), 0
    if step < 200 or step % 4:
        continue
    pick = random.choices(range(len(mem["s"])), k=64)
    S, A, R, S2, alive = (torch.tensor([mem[k][i] for i in pick]) for k in ("s", "a", "r", "s2", "alive"))
    alpha = log_alpha.exp().item()
    with torch.no_grad():
        lp2 = pi(S2).log_softmax(1)
        soft = (lp2.exp() * (torch.minimum(t1(S2), t2(S2)) - alpha * lp2)).sum(1)
        y = R + 0.95 * alive * soft
    idx = A[:, None]
    lq = sum((q(S).gather(1, idx)[:, 0] - y).square().mean() for q in (q1, q2))
    opt_q.zero_grad()
    lq.backward()
    opt_q.step()
    lp = pi(S).log_softmax(1)
    with torch.no_grad():
        q = torch.minimum(q1(S), q2(S))
    H = -(lp.exp() * lp).sum(1)
    objective = (lp.exp() * q).sum(1) + alpha * H
    lt = log_alpha * (H.detach().mean() - TARGET_H)
    opt_pi.zero_grad()
    (lt - objective.mean()).backward()
    opt_pi.step()
    with torch.no_grad():
        for lag, live in ((t1, q1), (t2, q2)):
            for x, y_ in zip(lag.parameters(), live.parameters()):
                x.copy_(0.98 * x + 0.02 * y_)
print("episodes", len(wins), "first", wins[:6], "last", wins[-12:], "alpha", log_alpha.exp().item(), "H", H.mean().item())
