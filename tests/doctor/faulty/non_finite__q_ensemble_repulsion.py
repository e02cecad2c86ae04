import torch
from torch import nn

torch.manual_seed(13)

# Offline fitted Q with an ensemble; a repulsion term keeps the members apart


def transitions(n):
    s = torch.rand(n, 2) * 2 - 1
    a = torch.randint(0, 3, (n,))
    s2 = s.clone()
    s2[:, 0] = (s2[:, 0] + (a - 1) * 0.2).clamp(-1, 1)
    r = (s2[:, 0] > 0.7).float() - 0.1 * s2[:, 1].abs()
    ends = (s2[:, 0] > 0.9).float()
    return s, a, r, s2, ends


class Member(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 3))

    def forward(self, x):
        return self.layers(x)


class Ensemble(nn.Module):
    def __init__(self, k=4):
        super().__init__()
        self.members = nn.ModuleList([Member() for _ in range(k)])

    def forward(self, x):
        return torch.stack([m(x) for m in self.members])      # [K, B, A]


def repulsion(q, scale=1.0):
    flat = q.flatten(1)                                        # [K, B*A]
    diff = flat[:, None] - flat[None, :]
    dist = torch.sqrt(diff.pow(2).mean(-1))  # expect: non-finite
    kernel = torch.exp(-dist / scale)
    return kernel.mean()


data = transitions(4000)
online, target = Ensemble(), Ensemble()
target.load_state_dict(online.state_dict())
optimizer = torch.optim.Adam(online.parameters(), lr=1e-3)

for i in range(500):
    idx = torch.randint(0, 4000, (128,))
    s, a, r, s2, ends = (x[idx] for x in data)
    with torch.no_grad():
        nq = target(s2).amin(0).max(1).values
        y = r + 0.95 * (1 - ends) * nq
    q_all = online(s)
    q = q_all.gather(2, a.view(1, -1, 1).expand(len(q_all), -1, 1)).squeeze(2)
    td = (q - y.unsqueeze(0)).pow(2).mean()
    rep = repulsion(q_all)
    loss = td + 0.05 * rep
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(online.parameters(), 10.0)
    optimizer.step()
    if i % 25 == 0:
        target.load_state_dict(online.state_dict())
    if i % 100 == 0:
        print(i, "td", td.item(), "repulsion", rep.item())
