import argparse

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
from torch.distributions.categorical import Categorical


def parse_args():
    p = argparse.ArgumentParser()
    p.add_argument("--updates", type=int, default=6)
    p.add_argument("--num-steps", type=int, default=256)
    p.add_argument("--lr", type=float, default=1e-3)
    p.add_argument("--gamma", type=float, default=0.99)
    p.add_argument("--lam", type=float, default=0.95)
    return p.parse_args()


def layer(i, o, std=np.sqrt(2)):
    m = nn.Linear(i, o)
    nn.init.orthogonal_(m.weight, std)
    nn.init.zeros_(m.bias)
    return m


class Agent(nn.Module):
    def __init__(self):
        super().__init__()
        self.critic = nn.Sequential(layer(4, 64), nn.Tanh(), layer(64, 64), nn.Tanh(), layer(64, 1, 1.0))
        self.actor = nn.Sequential(layer(4, 64), nn.Tanh(), layer(64, 64), nn.Tanh(), layer(64, 2, 0.01))

    def value(self, x):
        return self.critic(x).squeeze(-1)

    def act(self, x, action=None):
        d = Categorical(logits=self.actor(x))
        if action is None:
            action = d.sample()
        return action, d.log_prob(action), d.entropy(), self.value(x)


if __name__ == "__main__":
    args = parse_args()
    torch.manual_seed(1)
    np.random.seed(1)
    env = gym.make("CartPole-v1")
    agent = Agent()
    opt = torch.optim.Adam(agent.parameters(), lr=args.lr, eps=1e-5)

    T = args.num_steps
    b_obs, b_act = torch.zeros(T, 4), torch.zeros(T)
    b_logp, b_rew, b_val = torch.zeros(T), torch.zeros(T), torch.zeros(T)
    b_nextval, b_end = torch.zeros(T), torch.zeros(T)
    obs, _ = env.reset(seed=1)
    ep_ret, rets = 0.0, []
    for update in range(args.updates):
        for t in range(T):
            x = torch.as_tensor(obs)
            with torch.no_grad():
                a, lp, _, v = agent.act(x)
            nobs, r, term, trunc, _ = env.step(a.item())
            b_obs[t], b_act[t], b_logp[t], b_val[t], b_rew[t] = x, a, lp, v, r
            with torch.no_grad():
                b_nextval[t] = 0.0 if term else agent.value(torch.as_tensor(nobs))
            b_end[t] = float(term or trunc)
            ep_ret += r
            obs = nobs
            if term or trunc:
                rets.append(ep_ret)
                ep_ret = 0.0
                obs, _ = env.reset()

        adv, last = torch.zeros(T), 0.0
        for t in reversed(range(T)):
            delta = b_rew[t] + args.gamma * b_nextval[t] - b_val[t]
            last = delta + args.gamma * args.lam * (1 - b_end[t]) * last
            adv[t] = last
        b_ret = adv + b_val

        for epoch in range(4):
            for mb in torch.randperm(T).split(64):
                _, newlogp, ent, newval = agent.act(b_obs[mb], b_act[mb])
                ratio = (newlogp - b_logp[mb]).exp()
                mb_adv = (adv[mb] - adv[mb].mean()) / (adv[mb].std() + 1e-8)
                pg_loss = torch.max(-mb_adv * ratio, -mb_adv * ratio.clamp(0.8, 1.2)).mean()
                v_loss = 0.5 * ((b_val[mb] - b_ret[mb]) ** 2).mean()  # expect: stored-value
                loss = pg_loss + 0.5 * v_loss - 0.01 * ent.mean()
                opt.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
                opt.step()
        print(f"update {update} return {np.mean(rets[-10:]):.1f} v_loss {v_loss.item():.2f} mean value {newval.mean().item():.3f}")
