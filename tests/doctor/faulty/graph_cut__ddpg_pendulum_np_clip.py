"""DDPG on Pendulum, one file."""
import copy
import random
from collections import deque

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

random.seed(3); np.random.seed(3); torch.manual_seed(3)
env = gym.make("Pendulum-v1")
OBS, ACT, MAX_A = 3, 1, 2.0


class Actor(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(OBS, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, ACT))

    def forward(self, o):
        return MAX_A * torch.tanh(self.body(o))


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(OBS + ACT, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, o, a):
        return self.body(torch.cat([o, a], dim=-1))


actor, critic = Actor(), Critic()
actor_t, critic_t = copy.deepcopy(actor), copy.deepcopy(critic)
pi_opt = torch.optim.Adam(actor.parameters(), lr=1e-3)
q_opt = torch.optim.Adam(critic.parameters(), lr=1e-3)
memory = deque(maxlen=20000)


def legal_action(net, o):
    """Whatever the network says, never leave the torque limits."""
    a = np.clip(net(o).detach().numpy(), -MAX_A, MAX_A)  # expect: graph-cut
    return torch.as_tensor(a)


def learn(batch_size=64, gamma=0.98, tau=0.01):
    o, a, r, o2, term = map(lambda x: torch.as_tensor(np.array(x), dtype=torch.float32), zip(*random.sample(memory, batch_size)))
    with torch.no_grad():
        y = r.unsqueeze(1) + gamma * (1 - term.unsqueeze(1)) * critic_t(o2, actor_t(o2))
    q_loss = F.mse_loss(critic(o, a), y)
    q_opt.zero_grad()
    q_loss.backward()
    q_opt.step()

    pi_loss = -critic(o, legal_action(actor, o)).mean()
    pi_opt.zero_grad()
    pi_loss.backward()
    pi_opt.step()

    with torch.no_grad():
        for net, net_t in ((actor, actor_t), (critic, critic_t)):
            for p, pt in zip(net.parameters(), net_t.parameters()):
                pt.lerp_(p, tau)
    return q_loss.item(), pi_loss.item()


obs, _ = env.reset(seed=3)
ep_ret = 0.0
for t in range(1400):
    a = legal_action(actor, torch.as_tensor(obs)).numpy() + 0.2 * np.random.randn(ACT)
    a = a.clip(-MAX_A, MAX_A).astype(np.float32)
    nxt, rew, term, trunc, _ = env.step(a)
    memory.append((obs, a, rew * 0.1, nxt, float(term)))
    obs, ep_ret = nxt, ep_ret + rew
    if term or trunc:
        print(f"t={t} return={ep_ret:.0f}")
        obs, _ = env.reset()
        ep_ret = 0.0
    if t > 300 and t % 2 == 0:
        learn()
