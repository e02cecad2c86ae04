"""DDPG for a one-dimensional servo: drive the angle to the reference."""
import math
import random
import torch
from torch import nn, optim


class Servo:
    def __init__(self, horizon=60):
        self.horizon = horizon

    def reset(self):
        self.th = random.uniform(-1.5, 1.5)
        self.om = 0.0
        self.ref = random.uniform(-1.0, 1.0)
        self.t = 0
        return [self.th, self.om, self.ref]

    def step(self, u):
        self.om += 0.1 * (2.0 * max(-1.0, min(1.0, u)) - math.sin(self.th) - 1.5 * self.om)
        self.th = max(-2.0, min(2.0, self.th + 0.1 * self.om))
        self.t += 1
        reward = -((self.th - self.ref) ** 2) - 0.05 * u * u
        return [self.th, self.om, self.ref], reward, self.t == self.horizon


class Ring:
    """preallocated torch storage"""

    def __init__(self, cap):
        self.data = torch.zeros(cap, 3 + 1 + 1 + 3)
        self.cap, self.i, self.full = cap, 0, False

    def put(self, s, a, r, s2):
        self.data[self.i] = torch.tensor(s + [a, r] + s2)
        self.i = (self.i + 1) % self.cap
        self.full = self.full or self.i == 0

    def draw(self, n):
        hi = self.cap if self.full else self.i
        rows = self.data[torch.randint(hi, (n,))]
        return rows[:, :3], rows[:, 3:4], rows[:, 4:5], rows[:, 5:]


def net(i, o, last=None):
    mods = [nn.Linear(i, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, o)]
    return nn.Sequential(*(mods + ([last] if last else [])))


def polyak(src, dst, rho=0.99):
    with torch.no_grad():
        for p, q in zip(src.parameters(), dst.parameters()):
            q.mul_(rho).add_(p, alpha=1 - rho)


random.seed(0)
torch.manual_seed(0)
actor, critic = net(3, 1, nn.Tanh()), net(4, 1)
actor_targ, critic_targ = net(3, 1, nn.Tanh()), net(4, 1)
actor_targ.load_state_dict(actor.state_dict())
critic_targ.load_state_dict(critic.state_dict())
actor_opt = optim.Adam(actor.parameters(), lr=1e-3)
critic_opt = optim.Adam(critic.parameters(), lr=2e-3)

env, ring, gamma = Servo(), Ring(4000), 0.95
q_mean = 0.0
for episode in range(14):
    s, last, score = env.reset(), False, 0.0
    while not last:
        with torch.no_grad():
            a = actor(torch.tensor([s])).item() + random.gauss(0, 0.3)
        a = max(-1.0, min(1.0, a))
        s2, r, last = env.step(a)
        ring.put(s, a, r, s2)
        s = s2
        score += r
        if episode == 0:
            continue
        S, A, R, S2 = ring.draw(64)
        with torch.no_grad():
            y = R + gamma * critic_targ(torch.cat([S2, actor_targ(S2)], 1))
        q = critic(torch.cat([S, A], 1))
        critic_loss = nn.functional.mse_loss(q, y)
        actor_loss = -critic(torch.cat([S, actor(S)], 1)).mean()

        critic_opt.zero_grad()
        actor_opt.zero_grad()
        critic_loss.backward()
        actor_loss.backward()  # expect: crossed-gradients
        critic_opt.step()
        actor_opt.step()

        polyak(actor, actor_targ)
        polyak(critic, critic_targ)
        q_mean = q.mean().item()
    print(f"episode {episode:2d}  score {score:8.2f}  mean Q {q_mean:8.2f}")
