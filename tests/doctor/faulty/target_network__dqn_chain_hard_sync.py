import random
from collections import deque, namedtuple
import torch
import torch.nn as nn
import torch.nn.functional as F

Transition = namedtuple("Transition", "s a r s2 terminal")


class SlipperyChain:
    """left gives a crumb, right is slippery but there is a treasure at the end"""

    def __init__(self, n=8):
        self.n = n

    def reset(self):
        self.i = 0
        return self.i

    def step(self, a):
        if random.random() < 0.15:
            a = 1 - a
        if a == 0:
            self.i = 0
            return self.i, 0.02, False
        self.i += 1
        if self.i == self.n - 1:
            return self.i, 1.0, True
        return self.i, 0.0, False


class Net(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.emb = nn.Embedding(n, 16)
        self.a = nn.Linear(16, 32)
        self.b = nn.Linear(32, 2)

    def forward(self, i):
        return self.b(F.relu(self.a(self.emb(i))))


def hard_update(dst, src):
    for d, s in zip(dst.parameters(), src.parameters()):
        d.data = s.data  # expect: target-network


def td_loss(net, target, batch, gamma=0.97):
    b = Transition(*zip(*batch))
    s, a, s2 = torch.tensor(b.s), torch.tensor(b.a), torch.tensor(b.s2)
    r = torch.tensor(b.r)
    alive = 1.0 - torch.tensor(b.terminal, dtype=torch.float32)
    q = net(s)[torch.arange(len(a)), a]
    with torch.no_grad():
        y = r + gamma * alive * target(s2).amax(dim=1)
    return F.smooth_l1_loss(q, y), q.mean().item()


random.seed(2)
torch.manual_seed(2)
env = SlipperyChain()
net, target = Net(env.n), Net(env.n)
hard_update(target, net)
opt = torch.optim.Adam(net.parameters(), lr=2e-3)
replay = deque(maxlen=3000)
found = 0
s, length = env.reset(), 0
for t in range(1, 1201):
    eps = max(0.1, 1.0 - t / 800)
    if random.random() < eps:
        a = random.randrange(2)
    else:
        with torch.no_grad():
            a = int(net(torch.tensor([s])).argmax())
    s2, r, terminal = env.step(a)
    replay.append(Transition(s, a, r, s2, terminal))
    found += terminal
    length += 1
    s = s2
    if terminal or length == 60:
        s, length = env.reset(), 0
    if len(replay) >= 64:
        loss, q_mean = td_loss(net, target, random.sample(replay, 32))
        opt.zero_grad()
        loss.backward()
        opt.step()
    if t % 100 == 0:
        hard_update(target, net)
    if t % 200 == 0:
        print(f"t {t} treasures {found} loss {loss.item():.4f} mean q {q_mean:.3f}")
