import copy
from collections import deque
import random

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn


def set_requires_grad(module, flag):
    for p in module.parameters():
        p.requires_grad_(flag)


class Agent:
    def __init__(self):
        self.actor = nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 1), nn.Tanh())
        self.critic = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
        self.actor_target = copy.deepcopy(self.actor)
        self.critic_target = copy.deepcopy(self.critic)
        set_requires_grad(self.actor_target, False)
        set_requires_grad(self.critic_target, False)
        self.opt_actor = torch.optim.Adam(self.actor.parameters(), lr=5e-4)
        self.opt_critic = torch.optim.AdamW(self.critic.parameters(), lr=1e-3, weight_decay=1e-3)
        # warm-up from zero
        self.warm = torch.optim.lr_scheduler.LambdaLR(self.opt_critic, lambda k: min(1.0, k / 50))

    def act(self, obs, noise):
        with torch.no_grad():
            a = self.actor(torch.as_tensor(obs)).numpy()
        return np.clip(a + noise * np.random.randn(1), -1, 1)

    def train(self, batch, gamma=0.97, rho=0.99):
        s, a, r, s2, cont = batch
        q = self.critic(torch.cat([s, a], 1))
        q_next = self.critic_target(torch.cat([s2, self.actor_target(s2)], 1))
        critic_loss = nn.functional.smooth_l1_loss(q, (r + gamma * cont * q_next).detach())
        self.opt_critic.zero_grad()
        critic_loss.backward()
        nn.utils.clip_grad_norm_(self.critic.parameters(), 1.0)
        self.opt_critic.step()
        self.warm.step()

        set_requires_grad(self.critic, False)
        actor_loss = -self.critic(torch.cat([s, self.actor(s)], 1)).mean()
        self.opt_actor.zero_grad()
        actor_loss.backward()
        self.opt_actor.step()
        set_requires_grad(self.critic, True)

        for net, tgt in ((self.actor, self.actor_target), (self.critic, self.critic_target)):
            for p, q_ in zip(net.parameters(), tgt.parameters()):
                q_.data = rho * q_.data + (1 - rho) * p.data
        return critic_loss.item()


random.seed(5); np.random.seed(5); torch.manual_seed(5)
env = gym.make("Pendulum-v1")
agent, memory = Agent(), deque(maxlen=5000)
obs, _ = env.reset(seed=5)
ret = 0.0
for step in range(1400):
    a = agent.act(obs, 0.2)
    obs2, rew, terminated, truncated, _ = env.step(2 * a.astype(np.float32))
    memory.append((obs, a, [rew / 8], obs2, [1.0 - terminated]))
    obs, ret = obs2, ret + rew
    if terminated or truncated:
        print("step", step + 1, "return", round(float(ret)))
        obs, _ = env.reset()
        ret = 0.0
    if step >= 200:
        agent.train([torch.as_tensor(np.array(x), dtype=torch.float32) for x in zip(*random.sample(memory, 64))])
