import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
from torch.distributions import Categorical

torch.manual_seed(2)
np.random.seed(2)
T, EPOCHS, MB, GAMMA, LAM, CLIP = 256, 4, 64, 0.99, 0.95, 0.2


class ActorCritic(nn.Module):
    def __init__(self):
        super().__init__()
        self.actor = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 2))
        self.critic = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 1))

    def evaluate(self, obs, act):
        dist = Categorical(logits=self.actor(obs))
        return dist.log_prob(act), dist.entropy(), self.critic(obs).squeeze(-1)


class Rollout:
    def __init__(self):
        self.obs = torch.zeros(T, 4)
        self.act = torch.zeros(T, dtype=torch.long)
        self.logp = torch.zeros(T)
        self.val = torch.zeros(T + 1)
        self.rew = torch.zeros(T)
        self.done = torch.zeros(T)
        self.cut = torch.zeros(T)

    def gae(self, boot):
        adv, last = torch.zeros(T), 0.0
        for t in reversed(range(T)):
            nxt = boot[t]
            delta = self.rew[t] + GAMMA * nxt * (1 - self.done[t]) - self.val[t]
            last = delta + GAMMA * LAM * (1 - self.cut[t]) * last
            adv[t] = last
        return adv, adv + self.val[:T]


net = ActorCritic()
opt = torch.optim.Adam(net.parameters(), lr=3e-4, eps=1e-5)
env = gym.make("CartPole-v1")
obs, _ = env.reset(seed=2)
length, lengths = 0, []
for update in range(10):
    buf, boot = Rollout(), torch.zeros(T)
    for t in range(T):
        with torch.no_grad():
            x = torch.as_tensor(obs)
            dist = Categorical(logits=net.actor(x))
            a = dist.sample()
            buf.obs[t], buf.act[t], buf.logp[t], buf.val[t] = x, a, dist.log_prob(a), net.critic(x).squeeze()
        obs, r, term, trunc, _ = env.step(a.item())
        with torch.no_grad():
            boot[t] = net.critic(torch.as_tensor(obs)).squeeze()
        buf.rew[t], buf.done[t], buf.cut[t] = r, float(term), float(term or trunc)
        length += 1
        if term or trunc:
            lengths.append(length)
            length, (obs, _) = 0, env.reset()
    adv, ret = buf.gae(boot)
    for _ in range(EPOCHS):
        for idx in torch.randperm(T).split(MB):
            new_logp, ent, v = net.evaluate(buf.obs[idx], buf.act[idx])
            a_mb = (adv[idx] - adv[idx].mean()) / (adv[idx].std() + 1e-8)
            ratio = torch.exp(buf.logp[idx] - buf.logp[idx])  # expect: stored-value
            surr = torch.min(ratio * a_mb, ratio.clamp(1 - CLIP, 1 + CLIP) * a_mb)
            loss = -surr.mean() + 0.5 * (v - ret[idx]).pow(2).mean()
            opt.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 0.5)
            opt.step()
    print(update, "mean length", np.mean(lengths[-20:]))
