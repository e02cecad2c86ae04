"""Small DDPG on Pendulum, everything kept in a dict."""
import copy
import random
from collections import deque

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(3)
np.random.seed(3)
random.seed(3)

ENV = gym.make("Pendulum-v1")
LOW, HIGH = ENV.action_space.low, ENV.action_space.high


def mlp(i, o, last=None):
    layers = [nn.Linear(i, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, o)]
    if last is not None:
        layers.append(last)
    return nn.Sequential(*layers)


nets = {"actor": mlp(3, 1, nn.Tanh()), "critic": mlp(4, 1)}
slow = {k: copy.deepcopy(v) for k, v in nets.items()}
opts = {"actor": torch.optim.Adam(nets["actor"].parameters(), 1e-3),
        "critic": torch.optim.Adam(nets["critic"].parameters(), 1e-3)}


def scale_action(raw):
    # (-1, 1) -> torque range of the environment
    unit = (raw.numpy(force=True) + 1.0) / 2.0  # expect: graph-cut
    return torch.as_tensor(LOW + unit * (HIGH - LOW), dtype=torch.float32)


def q(which, s, a):
    return which["critic"](torch.cat([s, a], dim=1))


def learn(mem):
    s, a, r, s2, term = (torch.as_tensor(np.array(x), dtype=torch.float32) for x in zip(*random.sample(mem, 64)))
    with torch.no_grad():
        a2 = scale_action(slow["actor"](s2))
        y = r.unsqueeze(1) + 0.98 * (1 - term.unsqueeze(1)) * q(slow, s2, a2)
    critic_loss = F.smooth_l1_loss(q(nets, s, a), y)
    opts["critic"].zero_grad()
    critic_loss.backward()
    opts["critic"].step()

    actor_loss = -q(nets, s, scale_action(nets["actor"](s))).mean()
    opts["actor"].zero_grad()
    actor_loss.backward()
    opts["actor"].step()

    for k in nets:
        for p, t in zip(nets[k].parameters(), slow[k].parameters()):
            t.data.lerp_(p.data, 0.01)
    return critic_loss.item(), actor_loss.item()


memory = deque(maxlen=10_000)
for episode in range(5):
    obs, _ = ENV.reset(seed=episode)
    total, over = 0.0, False
    while not over:
        with torch.no_grad():
            act = scale_action(nets["actor"](torch.as_tensor(obs).unsqueeze(0)))[0].numpy()
        act = np.clip(act + 0.3 * np.random.randn(1), LOW, HIGH).astype(np.float32)
        nxt, rew, terminated, truncated, _ = ENV.step(act)
        memory.append((obs, act, rew / 8.0, nxt, float(terminated)))
        obs, total, over = nxt, total + rew, terminated or truncated
        if len(memory) >= 200:
            losses = learn(memory)
    print(f"episode {episode} return {total:.1f}", losses if len(memory) > 200 else "")
