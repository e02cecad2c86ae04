# DDPG on a toy tracking task: a mass on a line, force in [-1, 1], stay close to a moving reference.
import copy
import math
import random

import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(1)
random.seed(1)


class Tracking:
    def reset(self):
        self.x, self.v, self.phase, self.t = random.uniform(-1, 1), 0.0, random.uniform(0, 6.28), 0
        return self._obs()

    def _obs(self):
        ref = 0.5 * math.sin(self.phase)
        return [self.x - ref, self.v - 0.05 * math.cos(self.phase), self.x]

    def step(self, force):
        self.v = 0.8 * self.v + 0.2 * force
        self.x = max(-2.0, min(2.0, self.x + 0.5 * self.v))
        self.phase += 0.1
        self.t += 1
        err = self._obs()[0]
        return self._obs(), -err * err - 0.02 * force * force, False, self.t >= 50


class Actor(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, s):
        return torch.tanh(self.net(s))


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, s, a):
        return self.net(torch.cat([s, a], dim=-1))


def soft_update(net, net_target, tau):
    for p, p_target in zip(net.parameters(), net_target.parameters()):
        p_target.data.mul_(1 - tau)
        p_target.data.add_(tau * p.data)


GAMMA, TAU, ACTOR_DELAY = 0.95, 0.02, 80
actor, critic = Actor(), Critic()
actor_t, critic_t = copy.deepcopy(actor), copy.deepcopy(critic)
actor_opt = torch.optim.Adam(actor.parameters(), lr=1e-3, maximize=True)
critic_opt = torch.optim.Adam(critic.parameters(), lr=2e-3, weight_decay=1e-4)

env, replay, updates, returns = Tracking(), [], 0, []
for episode in range(15):
    s, total, over = env.reset(), 0.0, False
    noise = 0.0
    while not over:
        with torch.no_grad():
            a = actor(torch.tensor(s)).item()
        noise = 0.85 * noise + 0.2 * random.gauss(0, 1)      # Ornstein-Uhlenbeck
        a = max(-1.0, min(1.0, a + noise))
        s2, r, terminated, over = env.step(a)
        replay.append((s, [a], [r], s2, [float(terminated)]))
        s, total = s2, total + r

        if len(replay) < 100:
            continue
        S, A, R, S2, D = (torch.tensor(c) for c in zip(*random.sample(replay, 64)))
        with torch.no_grad():
            y = R + GAMMA * (1 - D) * critic_t(S2, actor_t(S2))
        critic_loss = F.mse_loss(critic(S, A), y)
        critic_opt.zero_grad()
        critic_loss.backward()
        critic_opt.step()
        updates += 1

        # let the critic settle first
        if updates > ACTOR_DELAY:
            objective = critic(S, actor(S)).mean()
            actor_opt.zero_grad()
            objective.backward()
            actor_opt.step()
            soft_update(actor, actor_t, TAU)
        soft_update(critic, critic_t, TAU)
    returns.append(total)
    if episode % 3 == 2 and updates > ACTOR_DELAY:
        print(f"episode {episode} return {sum(returns[-3:]) / 3:.2f} critic {critic_loss.item():.5f} J {objective.item():.3f}")
