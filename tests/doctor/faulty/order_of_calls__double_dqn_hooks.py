"""Double DQN trainer with hooks on a corridor."""
import copy
import random
from collections import defaultdict, deque
from typing import Callable

import torch
import torch.nn as nn
import torch.nn.functional as F


class Corridor:
    def __init__(self, length=8):
        self.length = length

    def reset(self):
        self.i = 0
        return self.obs()

    def obs(self):
        return F.one_hot(torch.tensor(self.i), self.length).float()

    def step(self, a):
        self.i = max(0, self.i + (1 if a == 1 else -1))
        done = self.i == self.length - 1
        return self.obs(), (1.0 if done else -0.02), done


class Trainer:
    def __init__(self, q: nn.Module, lr=2e-3, gamma=0.95, batch_size=32):
        self.q, self.q_target = q, copy.deepcopy(q)
        self.optimizer = torch.optim.Adam(q.parameters(), lr=lr)
        self.gamma, self.batch_size = gamma, batch_size
        self.memory: deque = deque(maxlen=2000)
        self.hooks: dict[str, list[Callable]] = defaultdict(list)
        self.updates = 0

    def on(self, event: str, fn: Callable) -> None:
        self.hooks[event].append(fn)

    def fire(self, event: str, **kw) -> None:
        for fn in self.hooks[event]:
            fn(self, **kw)

    def train_step(self) -> None:
        o, a, r, o2, d = zip(*random.sample(self.memory, self.batch_size))
        o, o2 = torch.stack(o), torch.stack(o2)
        a, r, d = torch.tensor(a), torch.tensor(r), torch.tensor(d, dtype=torch.float32)
        with torch.no_grad():
            best = self.q(o2).argmax(1, keepdim=True)
            target = r + self.gamma * (1 - d) * self.q_target(o2).gather(1, best).squeeze(1)
        loss = F.huber_loss(self.q(o).gather(1, a.unsqueeze(1)).squeeze(1), target)
        loss.backward()
        self.fire("after_backward", loss=loss.item())
        self.optimizer.step()
        self.updates += 1
        self.fire("after_step", loss=loss.item())


def log_loss(tr: Trainer, loss: float) -> None:
    if tr.updates % 150 == 0:
        print(f"update {tr.updates} loss {loss:.5f}")


def prepare_gradients(tr: Trainer, loss: float) -> None:
    nn.utils.clip_grad_norm_(tr.q.parameters(), 5.0)
    tr.optimizer.zero_grad()  # expect: order-of-calls


def sync_target(tr: Trainer, loss: float) -> None:
    if tr.updates % 50 == 0:
        tr.q_target.load_state_dict(tr.q.state_dict())


def main():
    torch.manual_seed(9); random.seed(9)
    env = Corridor()
    trainer = Trainer(nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2)))
    trainer.on("after_backward", prepare_gradients)
    trainer.on("after_step", sync_target)
    trainer.on("after_step", log_loss)
    obs, t = env.reset(), 0
    for step in range(700):
        eps = max(0.1, 1.0 - step / 400)
        with torch.no_grad():
            a = random.randrange(2) if random.random() < eps else int(trainer.q(obs).argmax())
        nxt, r, done = env.step(a)
        trainer.memory.append((obs, a, r, nxt, done))
        t += 1
        obs = nxt
        if done or t == 50:
            obs, t = env.reset(), 0
        if step >= 64:
            trainer.train_step()


if __name__ == "__main__":
    main()
