import random
from collections import deque

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

random.seed(4)
np.random.seed(4)
torch.manual_seed(4)

# Small mountain car, reward -1 per step until the top is reached
X_MIN, X_MAX, V_MAX, TOP = -1.2, 0.6, 0.07, 0.5


def car_step(x, v, a):
    v += (a - 1) * 0.002 - 0.0025 * np.cos(3 * x)
    v = float(np.clip(v, -V_MAX, V_MAX))
    x = float(np.clip(x + v, X_MIN, X_MAX))
    if x == X_MIN and v < 0:
        v = 0.0
    return x, v, -1.0, x >= TOP


class QNetwork(nn.Module):
    def __init__(self):
        super(QNetwork, self).__init__()
        self.fc1 = nn.Linear(2, 64)
        self.fc2 = nn.Linear(64, 64)
        self.fc3 = nn.Linear(64, 3)

    def forward(self, state):
        x = F.relu(self.fc1(state))
        x = F.relu(self.fc2(x))
        return F.relu(self.fc3(x))  # expect: dead-relu


local, target = QNetwork(), QNetwork()
target.load_state_dict(local.state_dict())
optimizer = torch.optim.Adam(local.parameters(), lr=5e-4)
buffer = deque(maxlen=5000)
TAU, GAMMA = 0.01, 0.98


def to_obs(x, v):
    return np.array([x + 0.3, v * 15], dtype=np.float32)


def soft_update():
    for lp, tp in zip(local.parameters(), target.parameters()):
        tp.data.copy_(TAU * lp.data + (1.0 - TAU) * tp.data)


def learn(batch):
    s, a, r, s2, done = map(np.array, zip(*batch))
    s, s2 = torch.from_numpy(s), torch.from_numpy(s2)
    a = torch.from_numpy(a).long().view(-1, 1)
    r = torch.from_numpy(r).float().view(-1, 1)
    done = torch.from_numpy(done.astype(np.float32)).view(-1, 1)
    q_next = target(s2).detach().max(1)[0].unsqueeze(1)
    q_target = r + GAMMA * q_next * (1 - done)
    loss = F.mse_loss(local(s).gather(1, a), q_target)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    soft_update()
    return loss.item()


x, v = -0.5, 0.0
arrived = 0
for t in range(900):
    obs = to_obs(x, v)
    if random.random() < 0.3:
        action = random.randrange(3)
    else:
        with torch.no_grad():
            action = int(torch.argmax(local(torch.from_numpy(obs))))
    x, v, reward, top = car_step(x, v, action)
    buffer.append((obs, action, reward, to_obs(x, v), top))
    if top:
        arrived += 1
    if top or t % 200 == 199:
        x, v = random.uniform(-0.6, -0.4), 0.0
    if len(buffer) > 64:
        loss = learn(random.sample(buffer, 64))
        if t % 150 == 0:
            print(f"t={t} loss={loss:.4f} arrived={arrived}")
