import argparse
from collections import namedtuple

import gymnasium as gym
import numpy as np
import torch
from torch import nn, optim
from torch.distributions import Categorical

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--updates", type=int, default=80)
parser.add_argument("--n-steps", type=int, default=16)
parser.add_argument("--gamma", type=float, default=0.99)
parser.add_argument("--lr", type=float, default=7e-4)
args = parser.parse_args()

torch.manual_seed(args.seed)
np.random.seed(args.seed)

Nets = namedtuple("Nets", "actor critic")
nets = Nets(
    nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 2)),
    nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 1)),
)
opt = optim.RMSprop(list(nets.actor.parameters()) + list(nets.critic.parameters()), lr=args.lr, eps=1e-5)
env = gym.make("CartPole-v1")


def act(obs):
    dist = Categorical(logits=nets.actor(torch.from_numpy(obs)))
    a = dist.sample()
    return a, dist.log_prob(a)


def discounted(rewards, masks, bootstrap):
    out, g = [], bootstrap
    for r, m in zip(reversed(rewards), reversed(masks)):
        g = r + args.gamma * g * m
        out.insert(0, g)
    return torch.tensor(out, dtype=torch.float32)


obs, _ = env.reset(seed=args.seed)
ep_len, lengths = 0, []
for update in range(args.updates):
    log_probs, values, rewards, masks = [], [], [], []
    for _ in range(args.n_steps):
        a, lp = act(obs)
        values.append(nets.critic(torch.from_numpy(obs)).squeeze())
        log_probs.append(lp)
        obs, r, terminated, truncated, _ = env.step(a.item())
        rewards.append(r)
        masks.append(0.0 if terminated else 1.0)
        ep_len += 1
        if terminated or truncated:
            lengths.append(ep_len)
            ep_len = 0
            obs, _ = env.reset()
    with torch.no_grad():
        bootstrap = nets.critic(torch.from_numpy(obs)).item()
    returns = discounted(rewards, masks, bootstrap)
    values = torch.stack(values)
    log_probs = torch.tensor([float(lp) for lp in log_probs])  # expect: graph-cut
    advantages = (returns - values).detach()

    policy_loss = -(log_probs * advantages).mean()
    value_loss = (returns - values).pow(2).mean()
    loss = policy_loss + 0.5 * value_loss
    opt.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(nets.critic.parameters(), 0.5)
    opt.step()
    if update % 20 == 0 and lengths:
        print(update, "mean length", np.mean(lengths[-10:]), "loss", loss.item())
