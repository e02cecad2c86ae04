"""One-step actor-critic on a small windy corridor, fully online."""
import random

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.distributions import Categorical

random.seed(3)
torch.manual_seed(3)

N = 7           # cells 0..6, both ends are terminal, the right one pays
GAMMA = 0.95


def step(pos, action):
    move = 1 if action == 1 else -1
    if random.random() < 0.1:      # wind
        move = -1
    pos += move
    if pos >= N - 1:
        return pos, 1.0, True
    if pos <= 0:
        return pos, 0.0, True
    return pos, 0.0, False


def encode(pos):
    return F.one_hot(torch.tensor(max(0, min(pos, N - 1))), N).float()


actor = nn.Sequential(nn.Linear(N, 32), nn.Tanh(), nn.Linear(32, 2))
critic = nn.Sequential(nn.Linear(N, 32), nn.Tanh(), nn.Linear(32, 1))
actor_optim = torch.optim.Adam(actor.parameters(), lr=5e-3)
critic_optim = torch.optim.Adam(critic.parameters(), lr=1e-2)

wins = []
for episode in range(100):
    pos = N // 2
    discount = 1.0
    done = False
    steps = 0
    while not done and steps < 30:
        s = encode(pos)
        dist = Categorical(logits=actor(s))
        a = dist.sample()
        pos, reward, done = step(pos, a.item())
        s_next = encode(pos)

        v = critic(s)
        target = reward + GAMMA * critic(s_next) * (1 - int(done))
        td_error = target.detach() - v

        critic_loss = td_error.pow(2).mean()
        critic_optim.zero_grad()
        critic_loss.backward()
        critic_optim.step()

        actor_loss = (-discount * td_error.detach() * dist.log_prob(a)).mean()
        actor_optim.zero_grad()
        actor_loss.backward()
        actor_optim.step()

        discount *= GAMMA
        steps += 1
    wins.append(float(pos >= N - 1))
    if (episode + 1) % 20 == 0:
        print(f"episode {episode + 1:4d}  wins {sum(wins[-20:]) / 20:.2f}  V(start) {critic(encode(N // 2)).item():.3f}")
