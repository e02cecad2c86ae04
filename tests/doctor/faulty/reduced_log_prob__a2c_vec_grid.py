import numpy as np
import torch
import torch.nn as nn
import torch.optim as optim
from torch.distributions import Categorical

torch.manual_seed(13)
np.random.seed(13)

NENV = 32
SIZE = 6
MOVES = np.array([[0, 1], [0, -1], [1, 0], [-1, 0]])


class VecGrid():
    def __init__(self):
        self.pos = np.random.randint(0, SIZE, (NENV, 2))
        self.goal = np.array([SIZE - 1, SIZE - 1])

    def obs(self):
        return torch.FloatTensor(self.pos / (SIZE - 1.0) * 2 - 1)

    def step(self, act):
        self.pos = np.clip(self.pos + MOVES[act], 0, SIZE - 1)
        done = (self.pos == self.goal).all(1)
        rew = np.where(done, 1.0, -0.05)
        for i in np.nonzero(done)[0]:
            self.pos[i] = np.random.randint(0, SIZE - 1, 2)
        return self.obs(), torch.FloatTensor(rew), torch.FloatTensor(done)


class ActorCritic(nn.Module):
    def __init__(self):
        super(ActorCritic, self).__init__()
        self.common = nn.Linear(2, 64)
        self.pi = nn.Linear(64, 4)
        self.v = nn.Linear(64, 1)

    def forward(self, x):
        x = torch.tanh(self.common(x))
        return Categorical(logits=self.pi(x)), self.v(x).squeeze(-1)


model = ActorCritic()
optimizer = optim.Adam(model.parameters(), lr=3e-3)
envs = VecGrid()
o = envs.obs()
gamma = 0.95
for update in range(150):
    lps, vals, rews, dones, ents = [], [], [], [], []
    for _ in range(8):
        dist, val = model(o)
        a = dist.sample()
        o, r, d = envs.step(a.numpy())
        lps.append(dist.log_prob(a).mean())  # expect: reduced-log-prob
        vals.append(val); rews.append(r); dones.append(d); ents.append(dist.entropy())
    with torch.no_grad():
        R = model(o)[1]
    rets = []
    for r, d in zip(reversed(rews), reversed(dones)):
        R = r + gamma * (1 - d) * R
        rets.insert(0, R)
    rets = torch.stack(rets)
    vals = torch.stack(vals)
    adv = (rets - vals).detach()
    actor_loss = -(torch.stack(lps).unsqueeze(1) * adv).mean()
    critic_loss = (rets - vals).pow(2).mean()
    loss = actor_loss + 0.5 * critic_loss - 0.01 * torch.stack(ents).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if update % 30 == 0:
        print(update, "goals per step", torch.stack(dones).mean().item())
