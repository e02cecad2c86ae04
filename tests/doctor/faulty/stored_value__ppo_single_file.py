import argparse
import random

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.optim as optim
from torch.distributions.categorical import Categorical


def parse_args():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--num-steps", type=int, default=128)
    parser.add_argument("--num-iterations", type=int, default=12)
    parser.add_argument("--update-epochs", type=int, default=4)
    parser.add_argument("--num-minibatches", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--gamma", type=float, default=0.99)
    parser.add_argument("--gae-lambda", type=float, default=0.95)
    parser.add_argument("--clip-coef", type=float, default=0.2)
    parser.add_argument("--vf-coef", type=float, default=0.5)
    return parser.parse_args()


def layer_init(layer, std=np.sqrt(2)):
    nn.init.orthogonal_(layer.weight, std)
    nn.init.zeros_(layer.bias)
    return layer


class Agent(nn.Module):
    def __init__(self):
        super().__init__()
        self.critic = nn.Sequential(layer_init(nn.Linear(4, 64)), nn.Tanh(), layer_init(nn.Linear(64, 1), 1.0))
        self.actor = nn.Sequential(layer_init(nn.Linear(4, 64)), nn.Tanh(), layer_init(nn.Linear(64, 2), 0.01))

    def get_value(self, x):
        return self.critic(x).flatten()

    def get_action(self, x, action=None):
        dist = Categorical(logits=self.actor(x))
        if action is None:
            action = dist.sample()
        return action, dist.log_prob(action), dist.entropy()


if __name__ == "__main__":
    args = parse_args()
    random.seed(args.seed)
    np.random.seed(args.seed)
    torch.manual_seed(args.seed)
    env = gym.make("CartPole-v1")
    agent = Agent()
    optimizer = optim.Adam(agent.parameters(), lr=args.learning_rate, eps=1e-5)

    T = args.num_steps
    obs_buf, act_buf, logp_buf = torch.zeros(T, 4), torch.zeros(T, dtype=torch.long), torch.zeros(T)
    rew_buf, val_buf, nextval_buf = torch.zeros(T), torch.zeros(T), torch.zeros(T)
    term_buf, end_buf = torch.zeros(T), torch.zeros(T)

    obs = torch.tensor(env.reset(seed=args.seed)[0])
    for iteration in range(args.num_iterations):
        for t in range(T):
            with torch.no_grad():
                action, logprob, _ = agent.get_action(obs)
                val_buf[t] = agent.get_value(obs.unsqueeze(0))[0]
            obs_buf[t], act_buf[t], logp_buf[t] = obs, action, logprob
            nxt, reward, terminated, truncated, _ = env.step(action.item())
            nxt = torch.tensor(nxt)
            with torch.no_grad():
                nextval_buf[t] = agent.get_value(nxt.unsqueeze(0))[0]
            rew_buf[t], term_buf[t], end_buf[t] = reward, float(terminated), float(terminated or truncated)
            obs = nxt if not end_buf[t] else torch.tensor(env.reset()[0])

        advantages, last = torch.zeros(T), 0.0
        for t in reversed(range(T)):
            delta = rew_buf[t] + args.gamma * nextval_buf[t] * (1 - term_buf[t]) - val_buf[t]
            last = delta + args.gamma * args.gae_lambda * (1 - end_buf[t]) * last
            advantages[t] = last
        returns = advantages + val_buf
        old_logprob = logp_buf.clone()

        for epoch in range(args.update_epochs):
            for mb in torch.randperm(T).chunk(args.num_minibatches):
                _, newlogprob, entropy = agent.get_action(obs_buf[mb], act_buf[mb])
                ratio = (logp_buf[mb] - old_logprob[mb]).exp()  # expect: stored-value
                adv = (advantages[mb] - advantages[mb].mean()) / (advantages[mb].std() + 1e-8)
                pg_loss = torch.max(-adv * ratio, -adv * ratio.clamp(1 - args.clip_coef, 1 + args.clip_coef)).mean()
                v_loss = 0.5 * ((agent.get_value(obs_buf[mb]) - returns[mb]) ** 2).mean()
                loss = pg_loss - 0.01 * entropy.mean() + args.vf_coef * v_loss
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
                optimizer.step()
        print(f"iteration {iteration}: ended {int(end_buf.sum())}, v_loss {v_loss.item():.3f}, "
              f"kl {(old_logprob[mb] - newlogprob).mean().item():.5f}")
