from __future__ import annotations

import copy
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import torch
from torch import nn


@dataclass
class HP:
    steps: int = 700
    start: int = 150
    batch: int = 64
    gamma: float = 0.98
    tau: float = 0.01
    policy_delay: int = 2
    lr: float = 1e-3


class Memory:
    fields = ("s", "a", "r", "s2", "stop")

    def __init__(self, cap: int):
        self.s, self.s2 = np.zeros((cap, 3), np.float32), np.zeros((cap, 3), np.float32)
        self.a = np.zeros((cap, 1), np.float32)
        self.r, self.stop = np.zeros((cap, 1), np.float32), np.zeros((cap, 1), np.float32)
        self.n = 0

    def push(self, **kw):
        for k, v in kw.items():
            getattr(self, k)[self.n] = v
        self.n += 1

    def draw(self, rng, k):
        i = rng.integers(self.n, size=k)
        return {f: torch.from_numpy(getattr(self, f)[i]) for f in self.fields}


class TD3:
    def __init__(self, hp: HP):
        self.hp = hp
        self.pi = nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 1), nn.Tanh())
        self.qs = nn.ModuleList(nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 1)) for _ in range(2))
        self.pi_t, self.qs_t = copy.deepcopy(self.pi), copy.deepcopy(self.qs)
        for p in [*self.pi_t.parameters(), *self.qs_t.parameters()]:
            p.requires_grad = False
        self.pi_opt = torch.optim.Adam(self.pi.parameters(), lr=hp.lr)
        self.q_opt = torch.optim.Adam(self.qs.parameters(), lr=hp.lr)
        self.k = 0

    def update(self, b: dict[str, torch.Tensor]) -> float:
        with torch.no_grad():
            noise = (0.2 * torch.randn_like(b["a"])).clamp(-0.4, 0.4)
            a2 = (self.pi_t(b["s2"]) + noise).clamp(-1, 1)
            x2 = torch.cat([b["s2"], a2], -1)
            y = b["r"] + self.hp.gamma * (1 - b["stop"]) * torch.minimum(*(q(x2) for q in self.qs_t))
        x = torch.cat([b["s"], b["a"]], -1)
        q_loss = sum(nn.functional.mse_loss(q(x), y) for q in self.qs)
        self.q_opt.zero_grad(); q_loss.backward(); self.q_opt.step()
        self.k += 1
        if self.k % self.hp.policy_delay == 0:
            pi_loss = -self.qs[0](torch.cat([b["s"], self.pi(b["s"])], -1)).mean()
            self.pi_opt.zero_grad(); pi_loss.backward(); self.pi_opt.step()
            for net, tgt in ((self.pi, self.pi_t), (self.qs, self.qs_t)):
                for p, t in zip(net.parameters(), tgt.parameters()):
                    t.data.mul_(1 - self.hp.tau).add_(p.data, alpha=self.hp.tau)
        return q_loss.item()


def main(hp: HP = HP()):
    torch.manual_seed(6)
    rng = np.random.default_rng(6)
    env = gym.make("Pendulum-v1", max_episode_steps=100)
    agent, mem = TD3(hp), Memory(hp.steps)
    s, _ = env.reset(seed=6)
    ret = 0.0
    for step in range(hp.steps):
        with torch.no_grad():
            a = agent.pi(torch.from_numpy(s)).numpy() + rng.normal(0, 0.2, 1)
        a = np.clip(a, -1, 1).astype(np.float32)
        s2, r, terminated, truncated, _ = env.step(2.0 * a)
        stop = terminated or truncated  # expect: truncation
        mem.push(s=s, a=a, r=0.1 * r, s2=s2, stop=float(stop))
        ret += r
        s = s2
        if stop:
            print(f"step {step + 1} return {ret:.0f}")
            s, _ = env.reset()
            ret = 0.0
        if step >= hp.start:
            agent.update(mem.draw(rng, hp.batch))


if __name__ == "__main__":
    main()
