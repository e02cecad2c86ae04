import random
from collections import deque
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

random.seed(107)
torch.manual_seed(107)


@dataclass
class Parts:
    encoder: nn.Module
    decoder: nn.Module
    head: nn.Module
    target_head: nn.Module


parts = Parts(
    nn.Sequential(nn.Linear(4, 64), nn.Tanh()),
    nn.Linear(64, 4),
    nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2)),
    nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2)),
)
parts.target_head.load_state_dict(parts.head.state_dict())
env = gym.make("CartPole-v1")


def random_states(n):
    out, (obs, _) = [], env.reset(seed=107)
    for _ in range(n):
        out.append(obs)
        obs, _, terminated, truncated, _ = env.step(random.randrange(2))
        if terminated or truncated:
            obs, _ = env.reset()
    return torch.from_numpy(np.array(out))


def pretrain(states, steps=150):
    opt = torch.optim.Adam([*parts.encoder.parameters(), *parts.decoder.parameters()], lr=3e-3)
    for _ in range(steps):
        x = states[torch.randint(0, len(states), (64,))]
        loss = F.mse_loss(parts.decoder(parts.encoder(x)), x)
        opt.zero_grad()
        loss.backward()
        opt.step()
    print("autoencoder loss", loss.item())


def encode(x):
    with torch.no_grad():
        return parts.encoder(x)


def learn(opt, batch):
    s, a, r, s2, d = zip(*batch)
    s, s2 = encode(torch.tensor(np.array(s))), encode(torch.tensor(np.array(s2)))
    r, d = torch.tensor(r, dtype=torch.float32), torch.tensor(d, dtype=torch.float32)
    q = parts.head(s).gather(1, torch.tensor(a).unsqueeze(1)).squeeze(1)
    y = (r + 0.98 * (1 - d) * parts.target_head(s2).max(1).values).detach()
    loss = F.smooth_l1_loss(q, y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    return loss.item()


pretrain(random_states(600))
parts.encoder.requires_grad_(False)
opt = torch.optim.AdamW(parts.head.parameters(), lr=1e-3, weight_decay=1e-4)
memory = deque(maxlen=4000)
obs, _ = env.reset(seed=1)
score, scores = 0, []
for t in range(1200):
    if random.random() < max(0.05, 1 - t / 600):
        a = random.randrange(2)
    else:
        with torch.no_grad():
            a = parts.head(encode(torch.from_numpy(obs))).argmax().item()
    nxt, r, terminated, truncated, _ = env.step(a)
    memory.append((obs, a, r, nxt, terminated))
    obs, score = nxt, score + 1
    if terminated or truncated:
        scores.append(score)
        score, (obs, _) = 0, env.reset()
    if t >= 100:
        loss = learn(opt, random.sample(memory, 32))
    if t % 50 == 0:
        parts.target_head.load_state_dict(parts.head.state_dict())
    if t % 300 == 299:
        print(t, loss, np.mean(scores[-10:]))
