from dataclasses import dataclass, field
from typing import List

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
from torch.distributions import Categorical

torch.manual_seed(23)


@dataclass
class Learner:
    policy: nn.Module
    baseline: nn.Module
    gamma: float = 0.98
    opts: List[torch.optim.Optimizer] = field(default_factory=list)

    def __post_init__(self):
        self.opts = [torch.optim.Adam(m.parameters(), lr=lr) for m, lr in ((self.policy, 2e-3), (self.baseline, 1e-2))]


@dataclass
class Episode:
    obs: list = field(default_factory=list)
    actions: list = field(default_factory=list)
    rewards: list = field(default_factory=list)


def play(env, learner, seed):
    ep, (obs, _) = Episode(), env.reset(seed=seed)
    over = False
    while not over:
        with torch.no_grad():
            a = Categorical(logits=learner.policy(torch.from_numpy(obs))).sample().item()
        ep.obs.append(obs)
        ep.actions.append(a)
        obs, r, terminated, truncated, _ = env.step(a)
        ep.rewards.append(r)
        over = terminated or truncated
    return ep


def returns(ep, gamma):
    g, out = 0.0, []
    for r in ep.rewards[::-1]:
        g = r + gamma * g
        out.append([g])
    return torch.tensor(out[::-1], dtype=torch.float32)


def advantage(g, v):
    adv = (g - v).detach()
    return adv / (adv.std() + 1e-6) if len(adv) > 1 else adv


def score(learner, obs, actions):
    return Categorical(logits=learner.policy(obs)).log_prob(actions)


def learn(learner, ep):
    obs = torch.from_numpy(np.stack(ep.obs))
    g = returns(ep, learner.gamma)
    v = learner.baseline(obs)
    log_p = score(learner, obs, torch.tensor(ep.actions))
    pi_loss = -(log_p * advantage(g, v)).mean()  # expect: broadcast
    v_loss = nn.functional.mse_loss(v, g)
    for opt, loss in zip(learner.opts, (pi_loss, v_loss)):
        opt.zero_grad()
        loss.backward()
        opt.step()
    return v_loss.item()


env = gym.make("CartPole-v1")
learner = Learner(nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 2)),
                  nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 1)))
lengths = []
for i in range(120):
    ep = play(env, learner, i)
    loss = learn(learner, ep)
    lengths.append(len(ep.rewards))
    if i % 30 == 29:
        print(i + 1, np.mean(lengths[-30:]), loss)
