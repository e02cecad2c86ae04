import random
import numpy as np
import torch
from torch import nn

# Bootstrapped DQN on a deep chain. Gradients of several micro batches are accumulated.
random.seed(1)
np.random.seed(1)
torch.manual_seed(1)
N, HEADS, MICRO = 7, 5, 4


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.core = nn.Sequential(nn.Linear(N, 32), nn.ReLU())
        self.heads = nn.ModuleList(nn.Linear(32, 2) for _ in range(HEADS))
        priors = [nn.Sequential(nn.Linear(N, 16), nn.Tanh(), nn.Linear(16, 2)) for _ in range(HEADS)]
        self.priors = nn.ModuleList(priors).requires_grad_(False)    # randomised prior functions

    def forward(self, x):
        h = self.core(x)
        # every head writes only 1/HEADS of its gradient into the shared core
        h = h / HEADS + (h - h / HEADS).detach()
        return torch.stack([head(h) + 0.3 * prior(x) for head, prior in zip(self.heads, self.priors)], 1)


def onehot(i):
    v = np.zeros(N, np.float32)
    v[i] = 1
    return v


def play(net, head):
    i, path, total = 1, [], 0.0
    for _ in range(N + 3):
        with torch.no_grad():
            a = net(torch.from_numpy(onehot(i))[None])[0, head].argmax().item()
        j = max(0, min(N - 1, i + (1 if a else -1)))
        r = 1.0 if j == N - 1 else (0.01 if j == 0 else 0.0)
        mask = np.random.binomial(1, 0.6, HEADS).astype(np.float32)
        path.append((onehot(i), a, r, onehot(j), float(j == N - 1), mask))
        total += r
        i = j
        if i == N - 1:
            break
    return path, total


net, target = Heads(), Heads()
target.load_state_dict(net.state_dict())
learned = [p for p in net.parameters() if p.requires_grad]
opt = torch.optim.Adam(learned, lr=5e-3)
memory, totals, backwards = [], [], 0
opt.zero_grad()
for episode in range(130):
    path, total = play(net, random.randrange(HEADS))
    memory += path
    totals.append(total)
    for _ in range(8):
        if len(memory) < 64:
            continue
        s, a, r, s2, end, mask = (torch.as_tensor(np.array(c)) for c in zip(*random.sample(memory, 32)))
        r, end = r.float(), end.float()
        with torch.no_grad():
            best = net(s2).argmax(2, keepdim=True)
            nxt = target(s2).gather(2, best).squeeze(2)
            y = r[:, None] + 0.95 * (1 - end[:, None]) * nxt
        q = net(s).gather(2, a.view(-1, 1, 1).expand(-1, HEADS, 1)).squeeze(2)
        loss = (mask * (q - y) ** 2).sum() / mask.sum().clamp(min=1)
        (loss / MICRO).backward()
        backwards += 1
        if backwards % MICRO == 0:
            opt.step()
            opt.zero_grad()
        if backwards % 80 == 0:
            target.load_state_dict(net.state_dict())
    if episode % 26 == 25:
        print("episode", episode + 1, "mean total", round(float(np.mean(totals[-26:])), 3), "loss", round(loss.item(), 5))
