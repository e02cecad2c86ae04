"""Double DQN with several heads in ModuleList/ParameterList and weight sharing."""
import random

import torch
import torch.nn as nn
import torch.nn.functional as F

random.seed(1); torch.manual_seed(1)
N, MOVES = 5, [(0, 1), (1, 0), (0, -1), (-1, 0)]


class TiedQ(nn.Module):
    def __init__(self, emb=16, heads=3):
        super().__init__()
        self.row, self.col = nn.Embedding(N, emb), nn.Embedding(N, emb)
        self.col.weight = self.row.weight          # same geometry on both axes
        self.mix = nn.Linear(2 * emb, 48)
        self.scale = nn.ParameterList([nn.Parameter(torch.ones(4)) for _ in range(heads)])
        self.heads = nn.ModuleList([nn.Linear(48, 4) for _ in range(heads)])

    def forward(self, p):
        h = F.elu(self.mix(torch.cat([self.row(p[:, 0]), self.col(p[:, 1])], 1)))
        return torch.stack([s * head(h) for s, head in zip(self.scale, self.heads)]).mean(0)


def step(p, a):
    r = min(max(p[0] + MOVES[a][0], 0), N - 1)
    c = min(max(p[1] + MOVES[a][1], 0), N - 1)
    done = (r, c) == (N - 1, N - 1)
    return (r, c), (1.0 if done else -0.02), done


online, target = TiedQ(), TiedQ()
target.load_state_dict(online.state_dict())
opt = torch.optim.RMSprop(online.parameters(), lr=1e-3)
memory, p, t, goals = [], (0, 0), 0, 0
for k in range(900):
    if random.random() < max(0.1, 1 - k / 500):
        a = random.randrange(4)
    else:
        with torch.no_grad():
            a = online(torch.tensor([p])).argmax(1).item()
    p2, r, done = step(p, a)
    memory.append((p, a, r, p2, done))
    goals += done
    t += 1
    p = p2
    if done or t == 30:        # time limit: start again, nothing is stored about it
        p, t = (0, random.randrange(N - 1)), 0
    if k >= 64:
        s, b, rew, s2, d = zip(*random.sample(memory, 32))
        s, s2, b = torch.tensor(s), torch.tensor(s2), torch.tensor(b).unsqueeze(1)
        rew, alive = torch.tensor(rew), 1 - torch.tensor(d).float()
        best = online(s2).argmax(1, keepdim=True)
        y = rew + 0.95 * alive * target(s2).gather(1, best).squeeze(1).detach()
        loss = F.smooth_l1_loss(online(s).gather(1, b).squeeze(1), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
    if k % 40 == 0:
        target.load_state_dict(online.state_dict())
    if k % 300 == 299:
        print(k + 1, "goals", goals)
        goals = 0
