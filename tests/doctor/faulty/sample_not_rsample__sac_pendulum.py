import random
from collections import deque, namedtuple
from copy import deepcopy

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.distributions import Normal

Transition = namedtuple("Transition", "obs act rew next_obs term")


class SquashedGaussian(nn.Module):
    def __init__(self, obs_dim, act_dim, scale, hidden=64):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(obs_dim, hidden), nn.ReLU())
        self.mu = nn.Linear(hidden, act_dim)
        self.log_sigma = nn.Linear(hidden, act_dim)
        self.scale = scale

    def forward(self, obs):
        h = self.body(obs)
        sigma = self.log_sigma(h).clamp(-5, 1).exp()
        dist = Normal(self.mu(h), sigma)
        u = dist.sample()  # expect: sample-not-rsample
        a = torch.tanh(u)
        logp = dist.log_prob(u) - torch.log(self.scale * (1 - a.pow(2)) + 1e-6)
        return self.scale * a, logp.sum(-1, keepdim=True)


class QNet(nn.Module):
    def __init__(self, obs_dim, act_dim, hidden=64):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(obs_dim + act_dim, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, obs, act):
        return self.net(torch.cat([obs, act], dim=-1))


class SAC:
    def __init__(self, alpha=0.1, gamma=0.98, tau=0.01):
        self.actor = SquashedGaussian(3, 1, 2.0)
        self.q1, self.q2 = QNet(3, 1), QNet(3, 1)
        self.q1_t, self.q2_t = deepcopy(self.q1), deepcopy(self.q2)
        self.pi_opt = torch.optim.Adam(self.actor.parameters(), lr=1e-3)
        self.q_opt = torch.optim.Adam([*self.q1.parameters(), *self.q2.parameters()], lr=1e-3)
        self.alpha, self.gamma, self.tau = alpha, gamma, tau

    def update(self, obs, act, rew, next_obs, term):
        with torch.no_grad():
            a2, logp2 = self.actor(next_obs)
            q_next = torch.min(self.q1_t(next_obs, a2), self.q2_t(next_obs, a2))
            y = rew + self.gamma * (1 - term) * (q_next - self.alpha * logp2)
        q_loss = F.mse_loss(self.q1(obs, act), y) + F.mse_loss(self.q2(obs, act), y)
        self.q_opt.zero_grad()
        q_loss.backward()
        self.q_opt.step()

        a, logp = self.actor(obs)
        pi_loss = (self.alpha * logp - torch.min(self.q1(obs, a), self.q2(obs, a))).mean()
        self.pi_opt.zero_grad()
        pi_loss.backward()
        self.pi_opt.step()

        with torch.no_grad():
            for net, tgt in ((self.q1, self.q1_t), (self.q2, self.q2_t)):
                for p, pt in zip(net.parameters(), tgt.parameters()):
                    pt.data.add_(self.tau * (p - pt))
        return q_loss.item(), pi_loss.item()


def batch_of(memory, n):
    t = Transition(*zip(*random.sample(memory, n)))
    col = lambda x: torch.tensor(np.array(x), dtype=torch.float32)
    return col(t.obs), col(t.act), col(t.rew).unsqueeze(-1), col(t.next_obs), col(t.term).unsqueeze(-1)


if __name__ == "__main__":
    random.seed(0)
    torch.manual_seed(0)
    env = gym.make("Pendulum-v1")
    agent, memory = SAC(), deque(maxlen=20000)
    obs, _ = env.reset(seed=0)
    ret = 0.0
    for step in range(1, 601):
        with torch.no_grad():
            act = agent.actor(torch.as_tensor(obs))[0].numpy()
        next_obs, rew, terminated, truncated, _ = env.step(act)
        memory.append(Transition(obs, act, rew / 10, next_obs, float(terminated)))
        obs, ret = next_obs, ret + rew
        if terminated or truncated:
            print(f"{step}: return {ret:.1f}")
            obs, ret = env.reset()[0], 0.0
        if step > 200:
            agent.update(*batch_of(memory, 64))
