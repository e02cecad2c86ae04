import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

# T-maze in a batch: the cue is shown only at the first step, the turn is asked at the last one
torch.manual_seed(0)
rng = np.random.RandomState(0)
BATCH, LENGTH, CHUNK, GAMMA = 32, 6, 3, 0.95


class TMaze:
    def reset(self):
        self.cue = rng.randint(0, 2, BATCH)
        self.t = 0
        return self.obs()

    def obs(self):
        o = np.zeros((BATCH, 4), np.float32)
        if self.t == 0:
            o[np.arange(BATCH), self.cue] = 1
        o[:, 2] = self.t / LENGTH
        o[:, 3] = float(self.t == LENGTH - 1)
        return torch.from_numpy(o)

    def step(self, a):
        last = self.t == LENGTH - 1
        r = np.where(a == self.cue, 1.0, -1.0) if last else np.zeros(BATCH)
        self.t += 1
        return (None if last else self.obs()), torch.as_tensor(r, dtype=torch.float32), last


class RecurrentAC(nn.Module):
    def __init__(self, hidden=32):
        super().__init__()
        self.cell = nn.GRUCell(4, hidden)
        self.actor = nn.Linear(hidden, 2)
        self.critic = nn.Linear(hidden, 1)
        self.hidden = hidden

    def forward(self, o, h):
        h = self.cell(o, h)
        return F.log_softmax(self.actor(h), -1), self.critic(h).squeeze(-1), h


net = RecurrentAC()
opt = torch.optim.RMSprop(net.parameters(), lr=3e-3)
env = TMaze()
hits = []
for it in range(220):
    o, h, last = env.reset(), torch.zeros(BATCH, net.hidden), False
    while not last:
        h = h.detach() if it >= 100 else h      # short graphs once the memory works
        lps, vs, rs, ents = [], [], [], []
        whole = CHUNK if it >= 100 else LENGTH
        for _ in range(whole):
            lp, v, h = net(o, h)
            a = torch.multinomial(lp.exp().detach(), 1).squeeze(1)
            lps.append(lp[torch.arange(BATCH), a])
            ents.append(-(lp * lp.exp()).sum(-1))
            vs.append(v)
            o, r, last = env.step(a.numpy())
            rs.append(r)
            if last:
                break
        with torch.no_grad():
            R = torch.zeros(BATCH) if last else net(o, h)[1]
        targets = []
        for r in reversed(rs):
            R = r + GAMMA * R
            targets.insert(0, R)
        lps, vs, targets = torch.stack(lps), torch.stack(vs), torch.stack(targets)
        adv = targets - vs
        loss = -(lps * adv.detach()).mean() + 0.5 * adv.pow(2).mean() - 0.02 * torch.stack(ents).mean()
        opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        opt.step()
    hits.append((rs[-1] > 0).float().mean().item())
    if it % 40 == 39:
        print(f"{it + 1} correct turns {np.mean(hits[-20:]):.3f}")
