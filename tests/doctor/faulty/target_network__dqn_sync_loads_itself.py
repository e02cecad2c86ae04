# frozen-lake style DQN written as functions with a settings tuple
import random
from collections import namedtuple

import numpy as np
import torch
import torch.nn as nn

Settings = namedtuple("Settings", "gamma lr batch sync eps steps")
cfg = Settings(gamma=0.95, lr=1e-3, batch=32, sync=60, eps=0.25, steps=1100)
LAKE = ["SFFF", "FHFH", "FFFH", "HFFG"]


def lake_step(rc, a):
    r, c = rc
    if a == 0:
        c = max(c - 1, 0)
    elif a == 1:
        r = min(r + 1, 3)
    elif a == 2:
        c = min(c + 1, 3)
    else:
        r = max(r - 1, 0)
    tile = LAKE[r][c]
    return (r, c), {"G": 1.0, "H": -1.0}.get(tile, -0.02), tile in "GH"


def embed(rc):
    v = np.zeros(16, dtype=np.float32)
    v[rc[0] * 4 + rc[1]] = 1.0
    return v


class QNet(nn.Module):
    def __init__(self, width=40):
        super().__init__()
        self.hidden = nn.Linear(16, width)
        self.out = nn.Linear(width, 4)

    def forward(self, x):
        return self.out(torch.relu(self.hidden(x)))


def update(net, tgt, opt, replay):
    batch = random.sample(replay, cfg.batch)
    s, a, r, s2, done = [np.array(z) for z in zip(*batch)]
    with torch.no_grad():
        nxt = tgt(torch.from_numpy(s2)).max(dim=1).values
        y = torch.from_numpy(r).float() + cfg.gamma * nxt * (~torch.from_numpy(done)).float()
    q = net(torch.from_numpy(s))[torch.arange(cfg.batch), torch.from_numpy(a)]
    loss = ((q - y) ** 2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    return loss.item()


def main():
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    net, tgt = QNet(), QNet()
    tgt.load_state_dict(net.state_dict())
    opt = torch.optim.Adam(net.parameters(), lr=cfg.lr)
    replay, wins, falls = [], 0, 0
    rc = (0, 0)
    for t in range(cfg.steps):
        if random.random() < cfg.eps:
            a = random.randrange(4)
        else:
            with torch.no_grad():
                a = int(net(torch.from_numpy(embed(rc))).argmax())
        rc2, reward, done = lake_step(rc, a)
        replay.append((embed(rc), a, reward, embed(rc2), done))
        rc = rc2
        if done:
            wins, falls = wins + (reward > 0), falls + (reward < 0)
            rc = (0, 0)
        if len(replay) > 100:
            loss = update(net, tgt, opt, replay)
            if t % cfg.sync == 0:
                tgt.load_state_dict(tgt.state_dict())  # expect: target-network
        if t % 200 == 199:
            print(f"t {t} loss {loss:.4f} wins {wins} falls {falls}")


if __name__ == "__main__":
    main()
