import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn

torch.manual_seed(43)
np.random.seed(43)


class ReplayMemory:
    def __init__(self, capacity):
        self.data = {"s": torch.zeros(capacity, 4), "a": torch.zeros(capacity, 1, dtype=torch.long),
                     "r": torch.zeros(capacity, 1), "s2": torch.zeros(capacity, 4), "done": torch.zeros(capacity, 1)}
        self.n, self.capacity = 0, capacity

    def push(self, **row):
        for k, v in row.items():
            self.data[k][self.n % self.capacity] = torch.as_tensor(v)
        self.n += 1

    def sample(self, k):
        idx = torch.randint(0, min(self.n, self.capacity), (k,))
        return {name: col[idx] for name, col in self.data.items()}


class Learner:
    def __init__(self, gamma=0.99, lr=1e-3):
        build = lambda: nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
        self.pair = (build(), build())
        self.pair[1].load_state_dict(self.pair[0].state_dict())
        self.opt = torch.optim.Adam(self.pair[0].parameters(), lr=lr)
        self.gamma = gamma

    def _best_next(self, s2):
        online, target = self.pair
        a = online(s2).argmax(dim=1, keepdim=True)
        return target(s2).gather(1, a)

    def _continuation(self, batch):
        return self._best_next(batch["s2"]) * batch["done"]  # expect: done-mask

    def target(self, batch):
        with torch.no_grad():
            return batch["r"] + self.gamma * self._continuation(batch)

    def learn(self, batch):
        y = self.target(batch)
        q = self.pair[0](batch["s"]).gather(1, batch["a"])
        loss = nn.functional.huber_loss(q, y)
        self.opt.zero_grad()
        loss.backward()
        self.opt.step()
        return loss.item(), q.mean().item()


env = gym.make("CartPole-v1")
memory, learner = ReplayMemory(4000), Learner()
obs, _ = env.reset(seed=43)
for t in range(1200):
    if np.random.rand() < max(0.1, 1 - t / 600):
        a = env.action_space.sample()
    else:
        with torch.no_grad():
            a = learner.pair[0](torch.from_numpy(obs)).argmax().item()
    nxt, r, terminated, truncated, _ = env.step(a)
    memory.push(s=obs, a=a, r=r, s2=nxt, done=float(terminated))
    obs = env.reset()[0] if terminated or truncated else nxt
    if t > 200:
        out = learner.learn(memory.sample(32))
        if t % 100 == 0:
            learner.pair[1].load_state_dict(learner.pair[0].state_dict())
        if t % 300 == 0:
            print(t, "loss %.4f mean q %.3f" % out)
