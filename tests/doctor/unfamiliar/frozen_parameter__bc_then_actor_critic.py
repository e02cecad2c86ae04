import numpy as np
import torch
import torch.nn as nn
from torch.distributions import Categorical

torch.manual_seed(4)
np.random.seed(4)


class Corridor2D:
    """5x5 room, the goal sits in a random corner that is part of the observation."""
    moves = [(0, 1), (0, -1), (1, 0), (-1, 0)]

    def reset(self):
        self.p = np.array([2, 2])
        self.g = np.array([np.random.choice([0, 4]), np.random.choice([0, 4])])
        self.k = 0
        return self.obs()

    def obs(self):
        return np.concatenate([self.p, self.g]).astype(np.float32) / 4 - 0.5

    def step(self, a):
        self.k += 1
        before = np.abs(self.p - self.g).sum()
        self.p = np.clip(self.p + self.moves[a], 0, 4)
        after = np.abs(self.p - self.g).sum()
        goal = after == 0
        return self.obs(), 0.1 * (before - after) - 0.02 + (1.0 if goal else 0.0), bool(goal), self.k >= 20


class ActorCritic(nn.Module):
    def __init__(self):
        super(ActorCritic, self).__init__()
        self.trunk = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh())
        self.actor = nn.Linear(64, 4)
        self.critic = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 1))

    def forward(self, x):
        return Categorical(logits=self.actor(self.trunk(x))), self.critic(x).squeeze(-1)


model = ActorCritic()
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
env = Corridor2D()

# --- 1. imitate a few demonstrations that only move along x
demo_x = torch.rand(256, 4) - 0.5
demo_a = torch.where(demo_x[:, 0] < demo_x[:, 2], 2, 3)
for _ in range(10):
    dist, _ = model(demo_x)
    loss = -dist.log_prob(demo_a).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print("cloning loss", loss.item())


def play(model, gamma=0.95):
    s, S, A, R = env.reset(), [], [], []
    goal = limit = False
    while not (goal or limit):
        with torch.no_grad():
            a = model(torch.from_numpy(s))[0].sample().item()
        s2, r, goal, limit = env.step(a)
        S.append(s), A.append(a), R.append(r)
        s = s2
    with torch.no_grad():
        tail = 0.0 if goal else model(torch.from_numpy(s))[1].item()
    G = []
    for r in R[::-1]:
        tail = r + gamma * tail
        G.append(tail)
    return torch.from_numpy(np.array(S)), torch.tensor(A), torch.tensor(G[::-1]), sum(R)


# --- 2. let the critic catch up before the policy moves
for p in model.trunk.parameters():
    p.requires_grad = False  # expect: frozen-parameter
for _ in range(20):
    S, A, G, _ = play(model)
    _, v = model(S)
    loss = (v - G).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

# --- 3. fine-tune actor and critic together
scores = []
for ep in range(180):
    S, A, G, score = play(model)
    dist, v = model(S)
    adv = (G - v).detach()
    loss = -(dist.log_prob(A) * adv).mean() + 0.5 * (v - G).pow(2).mean() - 0.02 * dist.entropy().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    scores.append(score)
    if ep % 30 == 29:
        print(ep + 1, "avg score", np.mean(scores[-30:]).round(3))
