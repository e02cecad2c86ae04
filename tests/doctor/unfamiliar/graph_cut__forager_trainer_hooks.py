"""Tiny training kit plus one game: creatures on a torus look for berries, all worlds stepped at once."""
from collections import defaultdict

import torch
from torch import nn
from torch.distributions import Categorical

N, SIDE, T = 64, 7, 12
MOVES = torch.tensor([[0, 1], [0, -1], [1, 0], [-1, 0]])


class World:
    def spawn(self):
        self.me, self.berry = torch.randint(SIDE, (N, 2)), torch.randint(SIDE, (N, 2))
        return self.view()

    def view(self):
        d = (self.berry - self.me + SIDE // 2) % SIDE - SIDE // 2
        return d.float() / SIDE

    def tick(self, a):
        self.me = (self.me + MOVES[a]) % SIDE
        got = (self.me == self.berry).all(1)
        self.berry = torch.where(got[:, None], torch.randint(SIDE, (N, 2)), self.berry)
        return self.view(), got.float() - 0.02


class Brain(nn.Module):
    def __init__(self):
        super().__init__()
        self.eyes = nn.Sequential(nn.Linear(2, 48), nn.Tanh(), nn.Linear(48, 24), nn.Tanh())
        self.legs = nn.Linear(24, 4)

    @torch.no_grad()  # expect: graph-cut
    def perceive(self, v):
        """Feature vector of a view; the heat-map overlay draws it too."""
        return self.eyes(v)

    def forward(self, v):
        return Categorical(logits=self.legs(self.perceive(v)))


class Trainer:
    def __init__(self, brain, lr):
        self.brain, self.world, self.hooks = brain, World(), defaultdict(list)
        self.opt = torch.optim.Adam(brain.parameters(), lr=lr)
        self.score = 0.0

    def hook(self, when):
        def deco(f):
            self.hooks[when].append(f)
            return f
        return deco

    def fire(self, when, *a):
        for f in self.hooks[when]:
            f(self, *a)

    def episode(self):
        v, lps, rs = self.world.spawn(), [], []
        for _ in range(T):
            pi = self.brain(v)
            a = pi.sample()
            lps.append(pi.log_prob(a))
            v, r = self.world.tick(a)
            rs.append(r)
        R = torch.stack(rs)
        togo = R.flip(0).cumsum(0).flip(0)
        self.score = R.sum(0).mean().item()
        return -(torch.stack(lps) * (togo - togo.mean(1, keepdim=True))).mean()

    def run(self, n):
        for k in range(n):
            loss = self.episode()
            self.opt.zero_grad(set_to_none=True)
            loss.backward()
            self.fire("grads")
            self.opt.step()
            self.fire("end", k)


torch.manual_seed(3)
tr = Trainer(Brain(), 5e-3)


@tr.hook("grads")
def clip(t):
    nn.utils.clip_grad_norm_([p for p in t.brain.parameters() if p.grad is not None], 1.0)


@tr.hook("end")
def report(t, k):
    if k % 30 == 0:
        with torch.no_grad():
            overlay = t.brain.perceive(torch.zeros(1, 2)).norm()
        print(f"gen {k:3d} score {t.score:+.3f} overlay {overlay:.3f}")


tr.run(130)
