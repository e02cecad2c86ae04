import random
from collections import deque, namedtuple

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn

Transition = namedtuple("Transition", "s a r s2 done")
random.seed(8)
torch.manual_seed(8)


class DoubleDQN:
    def __init__(self, n_obs, n_act):
        self.nets = {"online": self._make(n_obs, n_act), "target": self._make(n_obs, n_act)}
        self.nets["target"].load_state_dict(self.nets["online"].state_dict())
        self.opt = torch.optim.Adam(self.nets["online"].parameters(), lr=5e-4)
        self.memory = deque(maxlen=4000)
        self.n_act, self.updates = n_act, 0

    @staticmethod
    def _make(i, o):
        return nn.Sequential(nn.Linear(i, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, o))

    def choose_action(self, obs, eps):
        if random.random() < eps:
            return random.randrange(self.n_act)
        with torch.no_grad():
            return self.nets["online"](torch.from_numpy(obs)).argmax().item()

    def _batch(self, n):
        b = Transition(*zip(*random.sample(self.memory, n)))
        f = lambda v: torch.tensor(np.array(v), dtype=torch.float32)
        return f(b.s), torch.tensor(b.a).unsqueeze(1), f(b.r), f(b.s2), f(b.done)

    @torch.no_grad()
    def _target(self, r, s2, done):
        best = self.nets["online"](s2).argmax(1, keepdim=True)
        return r + 0.99 * (1 - done) * self.nets["target"](s2).gather(1, best).squeeze(1)

    def _clip(self):
        nn.utils.clip_grad_norm_(self.nets["online"].parameters(), 10.0)

    def _finish(self, loss):
        loss.backward()
        self._clip()
        self._apply()

    def _apply(self):
        self.opt.zero_grad()  # expect: order-of-calls
        self.opt.step()
        self.updates += 1
        if self.updates % 100 == 0:
            self.nets["target"].load_state_dict(self.nets["online"].state_dict())

    def learn(self):
        s, a, r, s2, done = self._batch(32)
        q = self.nets["online"](s).gather(1, a).squeeze(1)
        loss = nn.functional.smooth_l1_loss(q, self._target(r, s2, done))
        self._finish(loss)
        return loss.item()


env = gym.make("CartPole-v1")
agent = DoubleDQN(4, 2)
obs, _ = env.reset(seed=8)
for t in range(1000):
    a = agent.choose_action(obs, max(0.1, 1 - t / 500))
    nxt, r, terminated, truncated, _ = env.step(a)
    agent.memory.append(Transition(obs, a, r, nxt, float(terminated)))
    obs = nxt if not (terminated or truncated) else env.reset()[0]
    if t >= 200:
        loss = agent.learn()
        if t % 200 == 0:
            print(t, loss)
