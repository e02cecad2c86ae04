# DQN on CartPole with target network
import random

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.optim as optim

random.seed(8); np.random.seed(8); torch.manual_seed(8)

BUFFER_SIZE = 2000
BATCH_SIZE = 64
GAMMA = 0.99
LR = 1e-3
TARGET_UPDATE = 50

env = gym.make("CartPole-v1")
obs_dim = env.observation_space.shape[0]
n_actions = int(env.action_space.n)


class DQN(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(obs_dim, 64)
        self.fc2 = nn.Linear(64, 64)
        self.head = nn.Linear(64, n_actions)

    def forward(self, x):
        x = torch.relu(self.fc1(x))
        x = torch.relu(self.fc2(x))
        return self.head(x)


policy_net = DQN()
target_net = policy_net  # expect: target-network
optimizer = optim.Adam(policy_net.parameters(), lr=LR)

obs_buf = np.zeros((BUFFER_SIZE, obs_dim), dtype=np.float32)
next_buf = np.zeros((BUFFER_SIZE, obs_dim), dtype=np.float32)
act_buf = np.zeros(BUFFER_SIZE, dtype=np.int64)
rew_buf = np.zeros(BUFFER_SIZE, dtype=np.float32)
term_buf = np.zeros(BUFFER_SIZE, dtype=np.float32)

obs, _ = env.reset(seed=8)
ep_len, lens = 0, []
for t in range(750):
    if random.random() < max(0.05, 1 - t / 400):
        action = random.randrange(n_actions)
    else:
        with torch.no_grad():
            action = policy_net(torch.from_numpy(obs)[None]).argmax(1).item()
    nxt, reward, terminated, truncated, _ = env.step(action)
    i = t % BUFFER_SIZE
    obs_buf[i], act_buf[i], rew_buf[i], next_buf[i], term_buf[i] = obs, action, reward, nxt, terminated
    obs = nxt
    ep_len += 1
    if terminated or truncated:
        lens.append(ep_len)
        ep_len = 0
        obs, _ = env.reset()

    if t < 150:
        continue
    idx = np.random.randint(0, min(t + 1, BUFFER_SIZE), BATCH_SIZE)
    s, a, r, s2, d = (torch.from_numpy(b[idx]) for b in (obs_buf, act_buf, rew_buf, next_buf, term_buf))
    q = policy_net(s).gather(1, a.unsqueeze(1)).squeeze(1)
    q_next = target_net(s2).max(1)[0].detach()
    expected = r + GAMMA * q_next * (1 - d)
    loss = nn.functional.smooth_l1_loss(q, expected)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if t % TARGET_UPDATE == 0:
        target_net.load_state_dict(policy_net.state_dict())
    if t % 150 == 0:
        print(t, "loss", round(loss.item(), 4), "mean q", round(q.mean().item(), 3), "lens", lens[-5:])
env.close()
