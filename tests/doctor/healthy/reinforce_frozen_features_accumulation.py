"""REINFORCE on CartPole over frozen random Fourier features; gradients of four episodes are accumulated per step."""
import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
from torch.distributions import Categorical

torch.manual_seed(101)


class Fourier(nn.Module):
    def __init__(self, n_in, n_out):
        super().__init__()
        self.lin = nn.Linear(n_in, n_out)
        nn.init.normal_(self.lin.weight, std=0.7)
        for p in self.parameters():
            p.requires_grad = False

    @torch.no_grad()
    def forward(self, x):
        return torch.cos(self.lin(x))


features = Fourier(4, 128)
nets = {"pi": nn.Linear(128, 2), "v": nn.Linear(128, 1)}
opt = torch.optim.Adam([p for n in nets.values() for p in n.parameters()], lr=5e-3)
EPISODES_PER_UPDATE = 4


def run_episode(env, seed):
    obs, _ = env.reset(seed=seed)
    phis, acts, rews, over = [], [], [], False
    while not over:
        phi = features(torch.from_numpy(obs))
        a = Categorical(logits=nets["pi"](phi).detach()).sample().item()
        obs, r, terminated, truncated, _ = env.step(a)
        phis.append(phi)
        acts.append(a)
        rews.append(r)
        over = terminated or truncated
    return torch.stack(phis), torch.tensor(acts), rews


def returns(rews, gamma=0.98):
    out = np.zeros(len(rews), dtype=np.float32)
    g = 0.0
    for i in reversed(range(len(rews))):
        g = rews[i] + gamma * g
        out[i] = g
    return torch.from_numpy(out) / 10.0


def episode_loss(phi, acts, rews):
    g, v = returns(rews), nets["v"](phi).squeeze(-1)
    adv = (g - v).detach()
    logp = Categorical(logits=nets["pi"](phi)).log_prob(acts)
    return -(logp * adv).mean() + 0.5 * (g - v).pow(2).mean()


env = gym.make("CartPole-v1")
lengths = []
opt.zero_grad()
for ep in range(160):
    phi, acts, rews = run_episode(env, ep)
    loss = episode_loss(phi, acts, rews) / EPISODES_PER_UPDATE
    loss.backward()
    if (ep + 1) % EPISODES_PER_UPDATE == 0:
        opt.step()
        opt.zero_grad()
    lengths.append(len(rews))
    if (ep + 1) % 40 == 0:
        print(ep + 1, np.mean(lengths[-40:]))
