# REINFORCE with a learned baseline; gradients of several episodes are accumulated before one step
import gymnasium as gym
import torch
from torch import nn
from torch.distributions import Categorical

EPISODES_PER_STEP = 3
UPDATES = 35
GAMMA = 0.95


def build(n_out):
    return nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, n_out))


def returns_to_go(rewards, tail):
    g, out = tail, torch.empty(len(rewards))
    for i in range(len(rewards) - 1, -1, -1):
        g = rewards[i] + GAMMA * g
        out[i] = g
    return out


class Runner:
    def __init__(self, seed):
        self.env = gym.make("Acrobot-v1", max_episode_steps=60)
        self.policy, self.baseline = build(3), build(1)
        self.popt = torch.optim.Adam(self.policy.parameters(), lr=5e-3)
        self.bopt = torch.optim.SGD(self.baseline.parameters(), lr=0.02, momentum=0.9)
        self.counter = seed

    def episode(self):
        self.counter += 1
        obs, _ = self.env.reset(seed=self.counter)
        xs, lps, rews = [], [], []
        while True:
            x = torch.from_numpy(obs)
            d = Categorical(logits=self.policy(x))
            a = d.sample()
            obs, r, term, trunc, _ = self.env.step(a.item())
            xs.append(x)
            lps.append(d.log_prob(a))
            rews.append(float(-obs[0] - (obs[0] * obs[2] - obs[1] * obs[3])))
            if term or trunc:
                break
        # cut off by the clock: continue with the estimate
        with torch.no_grad():
            tail = 0.0 if term else self.baseline(torch.from_numpy(obs)).item()
        return torch.stack(xs), torch.stack(lps), returns_to_go(rews, tail), sum(rews) / len(rews)

    def train(self):
        for u in range(UPDATES):
            self.popt.zero_grad()
            self.bopt.zero_grad()
            score = 0.0
            for _ in range(EPISODES_PER_STEP):
                xs, lps, ret, s = self.episode()
                b = self.baseline(xs).squeeze(1)
                adv = ret - b.detach()
                policy_loss = -(lps * adv).mean() / EPISODES_PER_STEP
                baseline_loss = nn.functional.mse_loss(b, ret) / EPISODES_PER_STEP
                policy_loss.backward()
                baseline_loss.backward()
                score += s / EPISODES_PER_STEP
            nn.utils.clip_grad_norm_(self.baseline.parameters(), 5.0)
            self.popt.step()
            self.bopt.step()
            if u % 5 == 4:
                print(f"update {u + 1}: tip height {score:.3f}, baseline loss {baseline_loss.item() * EPISODES_PER_STEP:.2f}")


torch.manual_seed(23)
Runner(seed=1000).train()
