"""DDPG agent for Pendulum (short run)."""
import copy
import random
from collections import deque, namedtuple

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

Transition = namedtuple("Transition", "s a r s2 term")


class Actor(nn.Module):
    def __init__(self, s_dim, a_dim, bound):
        super().__init__()
        self.l1 = nn.Linear(s_dim, 64)
        self.l2 = nn.Linear(64, a_dim)
        self.bound = bound

    def forward(self, s):
        return self.bound * torch.tanh(self.l2(F.relu(self.l1(s))))


class Critic(nn.Module):
    def __init__(self, s_dim, a_dim):
        super().__init__()
        self.l1 = nn.Linear(s_dim + a_dim, 64)
        self.l2 = nn.Linear(64, 1)

    def forward(self, s, a):
        return self.l2(F.relu(self.l1(torch.cat([s, a], dim=-1))))


class DDPG:
    def __init__(self, s_dim, a_dim, bound):
        self.actor, self.critic = Actor(s_dim, a_dim, bound), Critic(s_dim, a_dim)
        self.target_actor = copy.deepcopy(self.actor)
        self.target_critic = copy.deepcopy(self.critic)
        self.a_opt = torch.optim.Adam(self.actor.parameters(), lr=5e-4)
        self.c_opt = torch.optim.Adam(self.critic.parameters(), lr=2e-3)
        self.memory = deque(maxlen=20000)
        self.bound = bound

    def act(self, s, noise=0.3):
        with torch.no_grad():
            a = self.actor(torch.as_tensor(s)).numpy()
        return np.clip(a + noise * np.random.randn(*a.shape), -self.bound, self.bound).astype(np.float32)

    def train_step(self, batch_size=64, gamma=0.97, tau=0.01):
        batch = Transition(*zip(*random.sample(self.memory, batch_size)))
        s, a, s2 = (torch.from_numpy(np.stack(x)) for x in (batch.s, batch.a, batch.s2))
        r = torch.tensor(batch.r, dtype=torch.float32).view(-1, 1)
        term = torch.tensor(batch.term, dtype=torch.float32).view(-1, 1)

        with torch.no_grad():
            target = r + gamma * (1 - term) * self.target_critic(s2, self.target_actor(s2))
        critic_loss = F.mse_loss(self.critic(s, a), target)
        self.c_opt.zero_grad()
        critic_loss.backward()
        self.c_opt.step()

        actor_loss = self.critic(s, self.actor(s)).mean()  # expect: wrong-sign
        self.a_opt.zero_grad()
        actor_loss.backward()
        self.a_opt.step()

        with torch.no_grad():
            for net, tgt in ((self.actor, self.target_actor), (self.critic, self.target_critic)):
                for p, tp in zip(net.parameters(), tgt.parameters()):
                    tp.mul_(1 - tau).add_(p, alpha=tau)
        return critic_loss.item(), actor_loss.item()


def main():
    random.seed(12)
    np.random.seed(12)
    torch.manual_seed(12)
    env = gym.make("Pendulum-v1")
    agent = DDPG(3, 1, 2.0)
    obs, _ = env.reset(seed=12)
    for t in range(450):
        a = agent.act(obs)
        nxt, r, terminated, truncated, _ = env.step(a)
        agent.memory.append(Transition(obs, a, r / 8.0, nxt, terminated))
        obs = nxt
        if terminated or truncated:
            obs, _ = env.reset()
        if len(agent.memory) >= 100:
            losses = agent.train_step()
            if t % 100 == 0:
                print(t, "critic %.4f actor %.4f" % losses)


if __name__ == "__main__":
    main()
