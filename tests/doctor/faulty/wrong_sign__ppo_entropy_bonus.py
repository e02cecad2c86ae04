import time
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn as nn
from torch.distributions import Categorical
import gymnasium as gym


@dataclass
class Config:
    seed: int = 1
    num_steps: int = 128
    updates: int = 7
    epochs: int = 4
    minibatch: int = 32
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip_coef: float = 0.2
    ent_coef: float = 0.02
    vf_coef: float = 0.5
    lr: float = 1e-3


cfg = Config()
np.random.seed(cfg.seed)
torch.manual_seed(cfg.seed)
env = gym.make("CartPole-v1")


class Agent(nn.Module):
    def __init__(self):
        super().__init__()
        self.critic = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 1))
        self.actor = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 2))

    def get_action_and_value(self, x, action=None):
        probs = Categorical(logits=self.actor(x))
        if action is None:
            action = probs.sample()
        return action, probs.log_prob(action), probs.entropy(), self.critic(x).squeeze(-1)


agent = Agent()
optimizer = torch.optim.Adam(agent.parameters(), lr=cfg.lr, eps=1e-5)
start = time.time()
obs_now, _ = env.reset(seed=cfg.seed)
for update in range(cfg.updates):
    obs = torch.zeros(cfg.num_steps, 4)
    nxt = torch.zeros(cfg.num_steps, 4)
    actions, logprobs, rewards, values, terms, ends = (torch.zeros(cfg.num_steps) for _ in range(6))
    for t in range(cfg.num_steps):
        obs[t] = torch.as_tensor(obs_now)
        with torch.no_grad():
            a, lp, _, v = agent.get_action_and_value(obs[t])
        obs_now, r, term, trunc, _ = env.step(int(a))
        nxt[t] = torch.as_tensor(obs_now)
        actions[t], logprobs[t], values[t], rewards[t] = a, lp, v, r
        terms[t], ends[t] = float(term), float(term or trunc)
        if term or trunc:
            obs_now, _ = env.reset()

    with torch.no_grad():
        next_values = agent.critic(nxt).squeeze(-1)
        deltas = rewards + cfg.gamma * next_values * (1 - terms) - values
        advantages = torch.zeros_like(rewards)
        last = 0.0
        for t in reversed(range(cfg.num_steps)):
            last = deltas[t] + cfg.gamma * cfg.gae_lambda * (1 - ends[t]) * last
            advantages[t] = last
        returns = advantages + values

    for _ in range(cfg.epochs):
        for mb in torch.randperm(cfg.num_steps).split(cfg.minibatch):
            _, newlogprob, entropy, newvalue = agent.get_action_and_value(obs[mb], actions[mb])
            ratio = (newlogprob - logprobs[mb]).exp()
            mb_adv = advantages[mb]
            mb_adv = (mb_adv - mb_adv.mean()) / (mb_adv.std() + 1e-8)
            pg_loss = torch.max(-mb_adv * ratio, -mb_adv * ratio.clamp(1 - cfg.clip_coef, 1 + cfg.clip_coef)).mean()
            v_loss = 0.5 * ((newvalue - returns[mb]) ** 2).mean()
            entropy_loss = entropy.mean()
            loss = pg_loss + cfg.ent_coef * entropy_loss + cfg.vf_coef * v_loss  # expect: wrong-sign
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
            optimizer.step()
    n_ep = max(1.0, ends.sum().item())
    print(f"update {update} episode length ~{cfg.num_steps / n_ep:.1f} entropy {entropy_loss.item():.3f} SPS {int((update + 1) * cfg.num_steps / (time.time() - start))}")
env.close()
