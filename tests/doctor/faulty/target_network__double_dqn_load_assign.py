"""Double DQN for an elevator toy, target network kept as a second module."""
import random

import torch
import torch.nn as nn
import torch.nn.functional as F

random.seed(9)
torch.manual_seed(9)

FLOORS, GAMMA, SYNC = 6, 0.95, 100


class Elevator:
    def reset(self):
        self.at, self.call = random.randrange(FLOORS), random.randrange(FLOORS)
        return self.features()

    def features(self):
        x = torch.zeros(2 * FLOORS)
        x[self.at] = 1
        x[FLOORS + self.call] = 1
        return x

    def step(self, a):
        reward = -0.1
        if a == 2:
            if self.at == self.call:
                reward = 1.0
                self.call = random.randrange(FLOORS)
            else:
                reward = -0.5
        else:
            self.at = min(max(self.at + (1 if a == 1 else -1), 0), FLOORS - 1)
        return self.features(), reward


def q_network():
    return nn.Sequential(nn.Linear(2 * FLOORS, 48), nn.ReLU(), nn.Linear(48, 3))


class Learner:
    def __init__(self):
        self.online = q_network()
        self.target = q_network()
        for p in self.target.parameters():
            p.requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.online.parameters(), lr=1e-3)
        self.updates = 0
        self.sync()

    def sync(self):
        self.target.load_state_dict(self.online.state_dict(), strict=True, assign=True)  # expect: target-network

    def loss(self, s, a, r, s2):
        q = self.online(s).gather(1, a.unsqueeze(1)).squeeze(1)
        with torch.no_grad():
            best = self.online(s2).argmax(dim=1, keepdim=True)
            y = r + GAMMA * self.target(s2).gather(1, best).squeeze(1)
        return F.mse_loss(q, y)

    def update(self, batch):
        s, a, r, s2 = zip(*batch)
        loss = self.loss(torch.stack(s), torch.tensor(a), torch.tensor(r), torch.stack(s2))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.updates += 1
        if self.updates % SYNC == 0:
            self.sync()
        return loss.item()


env, learner, memory = Elevator(), Learner(), []
x, gained = env.reset(), 0.0
for t in range(1100):
    if random.random() < max(0.1, 1 - t / 600):
        a = random.randrange(3)
    else:
        with torch.no_grad():
            a = learner.online(x).argmax().item()
    x2, r = env.step(a)
    memory.append((x, a, r, x2))
    x = x2
    gained += r
    if t >= 100:
        loss = learner.update(random.sample(memory, 32))
    if t % 200 == 199:
        print(f"t {t} loss {loss:.4f} reward per step {gained / 200:.3f}")
        gained = 0.0
