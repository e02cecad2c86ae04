"""Remember-the-cue task: the agent sees a cue in step 0 and must give it back when the bell rings."""
import torch
from torch import nn
from torch.nn import functional as F

torch.manual_seed(11)
B, L, C = 48, 5, 3


class CueTask:
    def start(self):
        self.cue = torch.randint(C, (B,))
        self.k = 0
        return torch.cat([F.one_hot(self.cue, C).float(), torch.zeros(B, 1)], 1)

    def tick(self, choice):
        self.k += 1
        bell = self.k == L - 1
        obs = torch.cat([torch.zeros(B, C), torch.full((B, 1), float(bell))], 1)
        if self.k == L:
            reward = (choice == self.cue).float()
        else:
            reward = -0.1 * (choice != C).float()        # should stay silent till the bell
        return obs, reward, self.k == L


class Recurrent(nn.Module):
    def __init__(self, h=32):
        super().__init__()
        self.h = h
        self.cell = nn.GRUCell(4, h)
        self.logits = nn.Linear(h, C + 1)
        self.baseline = nn.Linear(h, 1)

    def forward(self, o, h):
        h = self.cell(o, h)
        return self.logits(h), self.baseline(h).squeeze(1), h


net = Recurrent()
opt = torch.optim.Adam(net.parameters(), lr=8e-3)
task = CueTask()
for ep in range(220):
    o, h, over = task.start(), torch.zeros(B, net.h), False
    logp, ent, vals, rews = [], [], [], []
    while not over:
        z, v, h = net(o, h)
        pi = torch.distributions.Categorical(logits=z)
        a = pi.sample()
        o, r, over = task.tick(a)
        logp.append(pi.log_prob(a))
        ent.append(pi.entropy())
        vals.append(v)
        rews.append(r)
    R = torch.stack(rews).flip(0).cumsum(0).flip(0)
    V, LP = torch.stack(vals), torch.stack(logp)
    adv = (R - V).detach()
    loss = -(adv * LP).sum(0).mean() + 0.5 * F.mse_loss(V, R) * L - 0.02 * torch.stack(ent).sum(0).mean()
    opt.zero_grad()
    loss.backward()
    gn = nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    opt.step()
    if ep % 40 == 0 or ep == 219:
        print(ep, "return", R[0].mean().item(), "last step", rews[-1].mean().item(), "grad", gn.item())
