"""Recurrent A2C on a memory task with padded episodes."""
import torch
import torch.nn as nn
from torch.distributions import Categorical


class RecallBatch:
    """The cue is shown at t = 0 only; it must be answered at every later step. Lengths differ."""

    def __init__(self, n, max_len=7):
        self.n, self.max_len = n, max_len
        self.cue = torch.randint(0, 3, (n,))
        self.length = torch.randint(3, max_len + 1, (n,))

    def obs(self, t):
        o = torch.zeros(self.n, 4)
        if t == 0:
            o[torch.arange(self.n), self.cue] = 1.0
        o[:, 3] = t / self.max_len
        return o

    def reward(self, t, a):
        alive = (t < self.length).float()
        return alive * (a == self.cue).float() * float(t > 0), alive


class RecurrentAC(nn.Module):
    def __init__(self, h=32):
        super().__init__()
        self.cell = nn.GRUCell(4, h)
        self.pi, self.v = nn.Linear(h, 3), nn.Linear(h, 1)
        self.h = h

    def forward(self, o, h):
        h = self.cell(o, h)
        return Categorical(logits=self.pi(h)), self.v(h).squeeze(-1), h


torch.manual_seed(4)
net = RecurrentAC()
opt = torch.optim.Adam(net.parameters(), lr=5e-3)
N, gamma = 32, 0.9
for it in range(150):
    env = RecallBatch(N)
    h = torch.zeros(N, net.h)
    logps, values, ents, rewards, masks = [], [], [], [], []
    for t in range(env.max_len):
        dist, v, h = net(env.obs(t), h)
        a = dist.sample()
        r, alive = env.reward(t, a)
        logps.append(dist.log_prob(a)); values.append(v); ents.append(dist.entropy())
        rewards.append(r); masks.append(alive)
    logps, values, ents, rewards, masks = map(torch.stack, (logps, values, ents, rewards, masks))
    g, returns = torch.zeros(N), []
    for r in rewards.flip(0):
        g = r + gamma * g
        returns.append(g)
    returns = torch.stack(returns[::-1])
    adv = (returns - values).detach()
    n_valid = masks.sum()
    pg = -(logps * adv * masks).sum() / n_valid
    vf = ((values - returns).square() * masks).sum() / n_valid
    ent = (ents * masks).sum() / n_valid
    loss = pg + 0.5 * vf - 0.01 * ent
    opt.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    opt.step()
    if it % 50 == 49:
        print(it + 1, f"reward per step {(rewards.sum() / n_valid).item():.3f}")
