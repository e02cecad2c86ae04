import copy
import random

import numpy as np
import torch
import torch.nn as nn

random.seed(15); np.random.seed(15); torch.manual_seed(15)


class MachineRepair:
    """State: wear in [0, 1] and load. Actions: run, service, replace. Rewards are costs (<= 0)."""

    def reset(self):
        self.wear, self.load = 0.0, 0.5
        return self._s()

    def _s(self):
        return np.array([self.wear, self.load], dtype=np.float32)

    def step(self, a):
        if a == 2:
            cost, self.wear = 3.0, 0.0
        elif a == 1:
            cost, self.wear = 1.0, max(0.0, self.wear - 0.3)
        else:
            cost = 0.2 + 4.0 * self.wear ** 2
            self.wear = min(1.0, self.wear + 0.15 * self.load)
        self.load = float(np.clip(self.load + np.random.normal(0, 0.1), 0, 1))
        return self._s(), -cost


class QNetwork(nn.Module):
    def __init__(self, n_obs, n_act, hidden=(64, 64)):
        super().__init__()
        dims = [n_obs, *hidden, n_act]
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in zip(dims[:-1], dims[1:]))

    def forward(self, x):
        for layer in self.layers:
            x = torch.relu(layer(x))  # expect: dead-relu
        return x


q = QNetwork(2, 3)
q_target = copy.deepcopy(q)
optimizer = torch.optim.Adam(q.parameters(), lr=1e-3)
loss_fn = nn.SmoothL1Loss()
env, memory = MachineRepair(), []
s = env.reset()
for step in range(700):
    eps = max(0.1, 1.0 - step / 500)
    if random.random() < eps:
        a = random.randrange(3)
    else:
        with torch.no_grad():
            a = q(torch.from_numpy(s)).argmax().item()
    s2, r = env.step(a)
    memory.append((s, a, r, s2))
    s = s2
    if len(memory) < 64:
        continue
    bs, ba, br, bs2 = map(np.array, zip(*random.sample(memory, 32)))
    bs, bs2 = torch.from_numpy(bs), torch.from_numpy(bs2)
    ba, br = torch.from_numpy(ba), torch.from_numpy(br).float()
    with torch.no_grad():
        y = br + 0.9 * q_target(bs2).max(1).values
    pred = q(bs)[torch.arange(32), ba]
    loss = loss_fn(pred, y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 100 == 0:
        q_target.load_state_dict(q.state_dict())
        print(step, "loss", round(loss.item(), 3), "mean q", round(pred.mean().item(), 3))
