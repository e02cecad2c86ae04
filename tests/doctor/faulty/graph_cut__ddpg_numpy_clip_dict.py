import copy
import random
from collections import deque

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn

SEED = 7
random.seed(SEED)
np.random.seed(SEED)
torch.manual_seed(SEED)

env = gym.make("Pendulum-v1")
max_a = float(env.action_space.high[0])


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, s, a):
        return self.body(torch.cat([s, a], 1))


online = {"actor": nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 1), nn.Tanh()), "critic": Critic()}
target = {name: copy.deepcopy(net) for name, net in online.items()}
opts = {name: torch.optim.Adam(net.parameters(), lr=1e-3) for name, net in online.items()}
memory = deque(maxlen=5000)


def within_limits(a):
    """Keep actions inside the torque limits of the pendulum."""
    clipped = np.clip(a.detach().numpy(), -max_a, max_a)  # expect: graph-cut
    return torch.from_numpy(clipped)


def scale(a):
    return within_limits(a * max_a)


def policy(nets, s):
    return scale(nets["actor"](s))


def train_batch(batch_size=64, gamma=0.98, tau=0.01):
    s, a, r, s2 = (torch.as_tensor(np.array(x), dtype=torch.float32) for x in zip(*random.sample(memory, batch_size)))
    with torch.no_grad():
        y = r + gamma * target["critic"](s2, policy(target, s2))
    critic_loss = nn.functional.mse_loss(online["critic"](s, a), y)
    opts["critic"].zero_grad()
    critic_loss.backward()
    opts["critic"].step()

    actor_loss = -online["critic"](s, policy(online, s)).mean()
    opts["actor"].zero_grad()
    actor_loss.backward()
    opts["actor"].step()

    with torch.no_grad():
        for name in online:
            for p, tp in zip(online[name].parameters(), target[name].parameters()):
                tp.mul_(1 - tau).add_(p, alpha=tau)
    return critic_loss.item(), actor_loss.item()


s, _ = env.reset(seed=SEED)
for t in range(600):
    with torch.no_grad():
        a = policy(online, torch.as_tensor(s).unsqueeze(0))[0].numpy()
    a = np.clip(a + 0.2 * np.random.randn(1), -max_a, max_a).astype(np.float32)
    s2, r, terminated, truncated, _ = env.step(a)
    memory.append((s, a, [r / 10.0], s2))
    s = s2
    if terminated or truncated:
        s, _ = env.reset()
    if t > 150:
        losses = train_batch()
        if t % 150 == 0:
            print(t, losses)
