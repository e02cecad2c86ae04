import copy
import math

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.distributions import Normal

torch.manual_seed(5); np.random.seed(5)
LOG_STD_MIN, LOG_STD_MAX = -5, 2


class SoftQ(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(4, 64)
        self.fc2 = nn.Linear(64, 64)
        self.fc3 = nn.Linear(64, 1)

    def forward(self, x, a):
        x = torch.cat([x, a], 1)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))


class Actor(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.fc1 = nn.Linear(3, 64)
        self.fc2 = nn.Linear(64, 64)
        self.mean = nn.Linear(64, 1)
        self.logstd = nn.Linear(64, 1)
        self.scale = scale

    def forward(self, x):
        x = F.relu(self.fc2(F.relu(self.fc1(x))))
        log_std = torch.tanh(self.logstd(x))
        log_std = LOG_STD_MIN + 0.5 * (LOG_STD_MAX - LOG_STD_MIN) * (log_std + 1)
        return self.mean(x), log_std

    def get_action(self, x):
        mean, log_std = self(x)
        normal = Normal(mean, log_std.exp())
        x_t = normal.sample()  # expect: sample-not-rsample
        y_t = torch.tanh(x_t)
        log_prob = normal.log_prob(x_t)
        log_prob = log_prob - 2 * (math.log(2) - x_t - F.softplus(-2 * x_t)) - math.log(self.scale)
        return y_t * self.scale, log_prob


class Buffer:
    def __init__(self, cap):
        self.s = np.zeros((cap, 3), np.float32); self.s2 = np.zeros((cap, 3), np.float32)
        self.a = np.zeros((cap, 1), np.float32); self.r = np.zeros((cap, 1), np.float32)
        self.d = np.zeros((cap, 1), np.float32)
        self.n = 0

    def add(self, *item):
        for arr, x in zip((self.s, self.a, self.r, self.s2, self.d), item):
            arr[self.n] = x
        self.n += 1

    def sample(self, k):
        i = np.random.randint(0, self.n, k)
        return [torch.from_numpy(x[i]) for x in (self.s, self.a, self.r, self.s2, self.d)]


env = gym.make("Pendulum-v1")
env.action_space.seed(5)
actor, qf1, qf2 = Actor(2.0), SoftQ(), SoftQ()
qf1_target, qf2_target = copy.deepcopy(qf1), copy.deepcopy(qf2)
q_optimizer = torch.optim.Adam(list(qf1.parameters()) + list(qf2.parameters()), lr=1e-3)
actor_optimizer = torch.optim.Adam(actor.parameters(), lr=1e-3)
log_alpha = torch.zeros(1, requires_grad=True)
a_optimizer = torch.optim.Adam([log_alpha], lr=1e-3)
rb = Buffer(5000)
gamma, tau, target_entropy = 0.98, 0.01, -1.0

obs, _ = env.reset(seed=5)
ep_ret = 0
for global_step in range(600):
    if global_step < 150:
        action = env.action_space.sample()
    else:
        with torch.no_grad():
            action = actor.get_action(torch.from_numpy(obs)[None])[0][0].numpy()
    next_obs, reward, terminated, truncated, _ = env.step(action)
    ep_ret += reward
    rb.add(obs, action, reward * 0.1, next_obs, terminated)
    obs = next_obs
    if terminated or truncated:
        print(f"step={global_step + 1} return={ep_ret:.1f} alpha={log_alpha.exp().item():.3f}")
        obs, _ = env.reset(); ep_ret = 0

    if global_step >= 150:
        s, a, r, s2, d = rb.sample(64)
        with torch.no_grad():
            a2, lp2 = actor.get_action(s2)
            min_q = torch.min(qf1_target(s2, a2), qf2_target(s2, a2)) - log_alpha.exp() * lp2
            next_q = r + (1 - d) * gamma * min_q
        qf_loss = F.mse_loss(qf1(s, a), next_q) + F.mse_loss(qf2(s, a), next_q)
        q_optimizer.zero_grad()
        qf_loss.backward()
        q_optimizer.step()

        pi, log_pi = actor.get_action(s)
        actor_loss = (log_alpha.exp().detach() * log_pi - torch.min(qf1(s, pi), qf2(s, pi))).mean()
        actor_optimizer.zero_grad()
        actor_loss.backward()
        actor_optimizer.step()

        alpha_loss = (-log_alpha.exp() * (log_pi.detach() + target_entropy)).mean()
        a_optimizer.zero_grad()
        alpha_loss.backward()
        a_optimizer.step()

        for q, qt in ((qf1, qf1_target), (qf2, qf2_target)):
            for p, tp in zip(q.parameters(), qt.parameters()):
                tp.data.copy_(tau * p.data + (1 - tau) * tp.data)
