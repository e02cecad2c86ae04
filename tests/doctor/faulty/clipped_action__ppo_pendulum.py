import argparse

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
from torch.distributions import Normal

parser = argparse.ArgumentParser()
parser.add_argument("--num-steps", type=int, default=200)
parser.add_argument("--updates", type=int, default=8)
parser.add_argument("--epochs", type=int, default=4)
parser.add_argument("--lr", type=float, default=1e-3)
args = parser.parse_args()
torch.manual_seed(33)
np.random.seed(33)


class Agent(nn.Module):
    def __init__(self):
        super().__init__()
        self.critic = nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 1))
        self.actor_mean = nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 1))
        self.actor_logstd = nn.Parameter(torch.zeros(1) + 0.5)

    def _dist(self, x):
        return Normal(self.actor_mean(x), self.actor_logstd.clamp(-2, 1).exp())

    def _bounded(self, action):
        return action.clamp(-2.0, 2.0)  # expect: clipped-action

    def get_value(self, x):
        return self.critic(x).squeeze(-1)

    def get_action_and_value(self, x, action=None):
        dist = self._dist(x)
        if action is None:
            action = self._bounded(dist.sample())
        return action, dist.log_prob(action).sum(-1), dist.entropy().sum(-1), self.get_value(x)


agent = Agent()
optimizer = torch.optim.Adam(agent.parameters(), lr=args.lr, eps=1e-5)
env = gym.make("Pendulum-v1")
T = args.num_steps
obs = torch.zeros(T, 3)
actions, logprobs, rewards, values, next_values = torch.zeros(T, 1), torch.zeros(T), torch.zeros(T), torch.zeros(T), torch.zeros(T)
ends = torch.zeros(T)
next_obs, _ = env.reset(seed=33)
for update in range(args.updates):
    for step in range(T):
        obs[step] = torch.from_numpy(next_obs)
        with torch.no_grad():
            actions[step], logprobs[step], _, values[step] = agent.get_action_and_value(obs[step])
        next_obs, r, term, trunc, _ = env.step(actions[step].numpy())
        rewards[step] = (r + 8.0) / 8.0
        with torch.no_grad():
            next_values[step] = agent.get_value(torch.from_numpy(next_obs))
        ends[step] = float(trunc)
        if trunc:
            next_obs, _ = env.reset()
    adv, last = torch.zeros(T), 0.0
    for t in reversed(range(T)):
        delta = rewards[t] + 0.95 * next_values[t] - values[t]
        adv[t] = last = delta + 0.95 * 0.95 * (1 - ends[t]) * last
    ret = adv + values
    for _ in range(args.epochs):
        for mb in torch.randperm(T).split(50):
            _, newlogprob, entropy, newvalue = agent.get_action_and_value(obs[mb], actions[mb])
            ratio = (newlogprob - logprobs[mb]).exp()
            a = (adv[mb] - adv[mb].mean()) / (adv[mb].std() + 1e-8)
            pg_loss = torch.max(-a * ratio, -a * ratio.clamp(0.8, 1.2)).mean()
            loss = pg_loss + 0.5 * (newvalue - ret[mb]).pow(2).mean() - 0.003 * entropy.mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
            optimizer.step()
    print(update, "reward", rewards.mean().item(), "loss", loss.item())
