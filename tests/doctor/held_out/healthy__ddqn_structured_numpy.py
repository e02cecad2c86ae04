import gymnasium as gym
import numpy as np
import torch
from torch import nn

# the replay is a numpy record array, as if it were a memmap on disk
REC = np.dtype([("obs", "f4", (6,)), ("act", "i8"), ("cost", "f4"), ("nxt", "f4", (6,)), ("term", "?")])


class Ring:
    def __init__(self, size):
        self.data = np.zeros(size, dtype=REC)
        self.head, self.full = 0, False

    def __lshift__(self, transition):
        self.data[self.head] = transition
        self.head += 1
        if self.head == len(self.data):
            self.head, self.full = 0, True
        return self

    def draw(self, rng, k):
        top = len(self.data) if self.full else self.head
        rec = self.data[rng.integers(0, top, k)]
        return {name: torch.from_numpy(np.ascontiguousarray(rec[name])) for name in REC.names}


class Duel(nn.Module):
    """estimates COST to go, so the greedy action is the argmin"""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh())
        self.level = nn.Linear(64, 1)
        self.spread = nn.Linear(64, 3)

    def forward(self, x):
        h = self.body(x)
        d = self.spread(h)
        return self.level(h) + d - d.mean(-1, keepdim=True)


def main():
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    env = gym.make("Acrobot-v1")
    net, lag = Duel(), Duel()
    lag.load_state_dict(net.state_dict())
    opt = torch.optim.AdamW(net.parameters(), lr=7e-4, weight_decay=1e-4)
    mem = Ring(4096)
    scale = np.array([1, 1, 1, 1, 4 * np.pi, 9 * np.pi], dtype=np.float32)
    obs, _ = env.reset(seed=0)
    obs = obs / scale
    for t in range(2500):
        if rng.random() < max(0.1, 1 - t / 1500):
            act = int(rng.integers(3))
        else:
            with torch.inference_mode():
                act = int(net(torch.from_numpy(obs)).argmin())
        nxt, rew, term, trunc, _ = env.step(act)
        nxt = nxt / scale
        mem << (obs, act, -rew, nxt, term)
        obs = nxt
        if term or trunc:
            obs, _ = env.reset()
            obs = obs / scale
        if t > 300 and t % 4 == 0:
            b = mem.draw(rng, 64)
            with torch.no_grad():
                best = net(b["nxt"]).argmin(1)
                tail = lag(b["nxt"])[torch.arange(64), best]
                goal = b["cost"] + 0.97 * torch.where(b["term"], torch.zeros_like(tail), tail)
            err = net(b["obs"])[torch.arange(64), b["act"]] - goal
            loss = err.square().mean()
            opt.zero_grad()
            loss.backward()
            opt.step()
            with torch.no_grad():
                for p, pl in zip(net.parameters(), lag.parameters()):
                    pl.lerp_(p, 0.02)
            if t % 500 == 0:
                print(t, "td", round(loss.item(), 4), "cost-to-go", round(goal.mean().item(), 3))


if __name__ == "__main__":
    main()
