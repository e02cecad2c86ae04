import random
from collections import deque

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(3)
np.random.seed(3)
random.seed(3)

LOW, HIGH = -2.0, 2.0


def mlp(sizes):
    layers = []
    for i in range(len(sizes) - 1):
        layers.append(nn.Linear(sizes[i], sizes[i + 1]))
        if i < len(sizes) - 2:
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)


def to_env_range(u):
    """squash the raw network output into [LOW, HIGH]"""
    u = np.tanh(u.detach().cpu().numpy())  # expect: graph-cut
    return LOW + 0.5 * (u + 1.0) * (HIGH - LOW)


class DDPG:
    def __init__(self, obs_dim, act_dim):
        self.actor = mlp([obs_dim, 64, 64, act_dim])
        self.critic = mlp([obs_dim + act_dim, 64, 64, 1])
        self.actor_t = mlp([obs_dim, 64, 64, act_dim])
        self.critic_t = mlp([obs_dim + act_dim, 64, 64, 1])
        self.actor_t.load_state_dict(self.actor.state_dict())
        self.critic_t.load_state_dict(self.critic.state_dict())
        self.opt_a = torch.optim.Adam(self.actor.parameters(), lr=1e-3)
        self.opt_c = torch.optim.Adam(self.critic.parameters(), lr=1e-3)
        self.memory = deque(maxlen=20000)

    def act(self, obs):
        u = self.actor(torch.from_numpy(obs))
        a = to_env_range(u) + 0.2 * np.random.randn(1)
        return np.clip(a, LOW, HIGH).astype(np.float32)

    def learn(self, batch_size=64, gamma=0.98, tau=0.01):
        batch = random.sample(self.memory, batch_size)
        s, a, r, s2, term = (torch.as_tensor(np.array(x), dtype=torch.float32) for x in zip(*batch))
        with torch.no_grad():
            a2 = torch.as_tensor(to_env_range(self.actor_t(s2)))
            y = r + gamma * (1 - term) * self.critic_t(torch.cat([s2, a2], 1)).squeeze(1)
        loss_c = F.mse_loss(self.critic(torch.cat([s, a], 1)).squeeze(1), y)
        self.opt_c.zero_grad()
        loss_c.backward()
        self.opt_c.step()

        pi = torch.as_tensor(to_env_range(self.actor(s)))
        loss_a = -self.critic(torch.cat([s, pi], 1)).mean()
        self.opt_a.zero_grad()
        loss_a.backward()
        self.opt_a.step()

        with torch.no_grad():
            for net, tgt in ((self.actor, self.actor_t), (self.critic, self.critic_t)):
                for p, tp in zip(net.parameters(), tgt.parameters()):
                    tp.lerp_(p, tau)
        return loss_c.item(), loss_a.item()


if __name__ == "__main__":
    env = gym.make("Pendulum-v1")
    agent = DDPG(3, 1)
    for ep in range(4):
        obs, _ = env.reset(seed=ep)
        score, finished = 0.0, False
        while not finished:
            action = agent.act(obs)
            nxt, reward, terminated, truncated, _ = env.step(action)
            agent.memory.append((obs, action, reward / 10, nxt, float(terminated)))
            score += reward
            obs = nxt
            finished = terminated or truncated
            if len(agent.memory) > 150:
                lc, la = agent.learn()
        print(f"episode {ep} score {score:.1f}")
