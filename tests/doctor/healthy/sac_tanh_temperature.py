from __future__ import annotations
import copy
import math
import random
import numpy as np
import torch
from torch import nn, Tensor


class ReacherLine:
    """1-d: a hand at x, target at g; episodes of 25 steps, end only by time."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def reset(self) -> np.ndarray:
        self.x, self.g, self.t = self.rng.uniform(-1, 1), self.rng.uniform(-1, 1), 0
        return self.obs()

    def obs(self) -> np.ndarray:
        return np.array([self.x, self.g], dtype=np.float32)

    def step(self, a: float) -> tuple[np.ndarray, float, bool]:
        self.x = max(-1.5, min(1.5, self.x + 0.2 * a))
        self.t += 1
        return self.obs(), -abs(self.x - self.g), self.t >= 25


class Actor(nn.Module):
    LOG_STD_MIN, LOG_STD_MAX = -4.0, 1.0

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        self.mu, self.ls = nn.Linear(64, 1), nn.Linear(64, 1)

    def forward(self, o: Tensor) -> tuple[Tensor, Tensor]:
        h = self.net(o)
        ls = torch.tanh(self.ls(h))
        ls = self.LOG_STD_MIN + 0.5 * (self.LOG_STD_MAX - self.LOG_STD_MIN) * (ls + 1)
        return self.mu(h), ls

    def sample(self, o: Tensor) -> tuple[Tensor, Tensor]:
        mu, ls = self(o)
        dist = torch.distributions.Normal(mu, ls.exp())
        x = dist.rsample()
        a = torch.tanh(x)
        logp = dist.log_prob(x) - torch.log(1 - a.pow(2) + 1e-6)
        return a, logp.sum(1, keepdim=True)


def make_q() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))


def main() -> None:
    torch.manual_seed(2)
    random.seed(2)
    env, actor = ReacherLine(2), Actor()
    q1, q2 = make_q(), make_q()
    t1, t2 = copy.deepcopy(q1).eval(), copy.deepcopy(q2).eval()
    log_alpha = nn.Parameter(torch.tensor(math.log(0.2)))
    opts = {"pi": torch.optim.Adam(actor.parameters(), 1e-3), "q": torch.optim.Adam([*q1.parameters(), *q2.parameters()], 1e-3), "alpha": torch.optim.Adam([log_alpha], 1e-3)}
    replay: list[tuple] = []
    o, total = env.reset(), 0.0
    for step in range(1200):
        with torch.no_grad():
            a = actor.sample(torch.from_numpy(o)[None])[0].item()
        o2, r, time_up = env.step(a)
        replay.append((o, [a], [r], o2))
        o, total = o2, total + r
        if time_up:
            if step % 200 > 174:
                print(f"step {step} return {total:.2f} alpha {log_alpha.exp().item():.3f}")
            o, total = env.reset(), 0.0
        if step < 150:
            continue
        bo, ba, br, bo2 = (torch.from_numpy(np.array(c, dtype=np.float32)) for c in zip(*random.sample(replay, 64)))
        alpha = log_alpha.exp().item()
        with torch.no_grad():
            a2, lp2 = actor.sample(bo2)
            x2 = torch.cat([bo2, a2], 1)
            backup = br + 0.95 * (torch.min(t1(x2), t2(x2)) - alpha * lp2)
        x = torch.cat([bo, ba], 1)
        q_loss = ((q1(x) - backup) ** 2).mean() + ((q2(x) - backup) ** 2).mean()
        opts["q"].zero_grad(); q_loss.backward(); opts["q"].step()
        a, lp = actor.sample(bo)
        x = torch.cat([bo, a], 1)
        # the critics collect gradient here too, it is cleared before their next step
        pi_loss = (alpha * lp - torch.min(q1(x), q2(x))).mean()
        opts["pi"].zero_grad(); pi_loss.backward(); opts["pi"].step()
        alpha_loss = -(log_alpha * (lp + -1.0).detach()).mean()
        opts["alpha"].zero_grad(); alpha_loss.backward(); opts["alpha"].step()
        with torch.no_grad():
            for q, t in ((q1, t1), (q2, t2)):
                for p, pt in zip(q.parameters(), t.parameters()):
                    pt.mul_(0.99)
                    pt.add_(0.01 * p)


if __name__ == "__main__":
    main()
