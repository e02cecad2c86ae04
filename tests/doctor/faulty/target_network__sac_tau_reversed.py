import random
from copy import deepcopy

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.distributions import Normal

SEED = 77
TAU = 0.005
GAMMA = 0.98
ALPHA = 0.1

random.seed(SEED)
np.random.seed(SEED)
torch.manual_seed(SEED)
env = gym.make("Pendulum-v1")


class SoftQNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(4, 64)
        self.fc2 = nn.Linear(64, 1)

    def forward(self, x, a):
        return self.fc2(F.relu(self.fc1(torch.cat([x, a], 1))))


class Actor(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(3, 64)
        self.fc_mean = nn.Linear(64, 1)
        self.fc_logstd = nn.Linear(64, 1)

    def get_action(self, x):
        h = F.relu(self.fc1(x))
        log_std = -2.0 + 1.5 * torch.tanh(self.fc_logstd(h))
        normal = Normal(self.fc_mean(h), log_std.exp())
        x_t = normal.rsample()
        y_t = torch.tanh(x_t)
        log_prob = normal.log_prob(x_t) - torch.log(2.0 * (1 - y_t.pow(2)) + 1e-6)
        return 2.0 * y_t, log_prob


actor, qf = Actor(), SoftQNetwork()
qf_target = deepcopy(qf)
q_optimizer = torch.optim.Adam(qf.parameters(), lr=1e-3)
actor_optimizer = torch.optim.Adam(actor.parameters(), lr=5e-4)

rb = []
obs, _ = env.reset(seed=SEED)
for global_step in range(450):
    with torch.no_grad():
        action = actor.get_action(torch.as_tensor(obs).unsqueeze(0))[0][0].numpy()
    next_obs, reward, termination, truncation, _ = env.step(action)
    rb.append((obs, action, [np.float32(reward / 10)], next_obs, [np.float32(termination)]))
    obs = next_obs
    if termination or truncation:
        obs, _ = env.reset()
    if global_step < 100:
        continue

    s, a, r, s2, d = (torch.from_numpy(np.array(x, dtype=np.float32)) for x in zip(*random.sample(rb, 64)))
    with torch.no_grad():
        a2, logp2 = actor.get_action(s2)
        next_q = r + (1 - d) * GAMMA * (qf_target(s2, a2) - ALPHA * logp2)
    qf_loss = F.mse_loss(qf(s, a), next_q)
    q_optimizer.zero_grad()
    qf_loss.backward()
    q_optimizer.step()

    pi, logp = actor.get_action(s)
    actor_loss = (ALPHA * logp - qf(s, pi)).mean()
    actor_optimizer.zero_grad()
    actor_loss.backward()
    actor_optimizer.step()

    for param, target_param in zip(qf.parameters(), qf_target.parameters()):
        target_param.data.copy_(TAU * target_param.data + (1 - TAU) * param.data)  # expect: target-network
    if global_step % 100 == 0:
        print(f"step {global_step} qf_loss {qf_loss.item():.4f} actor_loss {actor_loss.item():.4f}")
env.close()
