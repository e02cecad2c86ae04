"""REINFORCE with value baseline on MountainCarContinuous with a shaped reward; the baseline is trained alone for the first episodes."""
import argparse
import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Sequential(nn.Linear(2, 32), nn.Tanh())
        self.mu = nn.Linear(32, 1)
        self.raw_std = nn.Parameter(torch.tensor([0.5]))

    def forward(self, s):
        std = nn.functional.softplus(self.raw_std) + 0.1
        return torch.distributions.Normal(self.mu(self.f(s)), std)


def play(env, policy, seed):
    s, _ = env.reset(seed=seed)
    states, logps, rewards = [], [], []
    over = False
    while not over:
        x = torch.tensor(s * np.array([1, 15]), dtype=torch.float32)
        d = policy(x)
        a = d.sample()
        states.append(x)
        logps.append(d.log_prob(a).sum())
        s, r, term, trunc, _ = env.step(np.clip(a.numpy(), -1, 1))
        rewards.append(float(r) / 100 + 10 * abs(float(s[1])))
        over = term or trunc
    return torch.stack(states), torch.stack(logps), rewards


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--episodes", type=int, default=72)
    ap.add_argument("--warmup", type=int, default=10)
    args = ap.parse_args()
    torch.manual_seed(15)
    env = gym.make("MountainCarContinuous-v0", max_episode_steps=120)
    policy = Policy()
    baseline = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 1))
    opt_p = torch.optim.Adam(policy.parameters(), lr=1e-2)
    opt_b = torch.optim.Adam(baseline.parameters(), lr=5e-3)
    for ep in range(args.episodes):
        states, logps, rewards = play(env, policy, ep)
        g, rets = 0.0, np.zeros(len(rewards), dtype=np.float32)
        for i in range(len(rewards) - 1, -1, -1):
            g = rewards[i] + 0.95 * g
            rets[i] = g
        rets = torch.from_numpy(rets)
        v = baseline(states).squeeze(-1)
        with torch.no_grad():
            adv = rets - v
            adv = adv / (adv.std() + 1e-6)
        opt_b.zero_grad()
        (v - rets).pow(2).mean().backward()
        opt_b.step()
        if ep >= args.warmup:
            opt_p.zero_grad()
            (-(logps * adv).mean()).backward()
            opt_p.step()
        if ep % 9 == 8:
            print(f"episode {ep + 1} shaped return {sum(rewards):.2f}")


if __name__ == "__main__":
    main()
