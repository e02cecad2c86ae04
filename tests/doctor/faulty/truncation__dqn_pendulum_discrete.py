"""Pendulum swing-up with a DQN over five torques."""
import random
from collections import deque

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

random.seed(2)
np.random.seed(2)
torch.manual_seed(2)

TORQUES = np.linspace(-2, 2, 5).astype(np.float32)
env = gym.make("Pendulum-v1", max_episode_steps=50)


class DuelingQ(nn.Module):
    def __init__(self):
        super().__init__()
        self.base = nn.Linear(3, 64)
        self.v = nn.Linear(64, 1)
        self.adv = nn.Linear(64, len(TORQUES))

    def forward(self, x):
        h = F.relu(self.base(x))
        adv = self.adv(h)
        return self.v(h) + adv - adv.mean(dim=1, keepdim=True)


policy_net = DuelingQ()
target_net = DuelingQ()
target_net.load_state_dict(policy_net.state_dict())
optimizer = torch.optim.Adam(policy_net.parameters(), lr=1e-3)
memory = deque(maxlen=3000)
gamma = 0.97


def optimize(batch_size=64):
    states, actions, rewards, next_states, dones = zip(*random.sample(memory, batch_size))
    states = torch.from_numpy(np.stack(states))
    next_states = torch.from_numpy(np.stack(next_states))
    actions = torch.tensor(actions).unsqueeze(1)
    rewards = torch.tensor(rewards, dtype=torch.float32)
    dones = torch.tensor(dones, dtype=torch.float32)
    with torch.no_grad():
        best_next = target_net(next_states).max(dim=1)[0]
    expected = rewards + gamma * best_next * (1 - dones)
    current = policy_net(states).gather(1, actions).squeeze(1)
    loss = F.smooth_l1_loss(current, expected)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


step_count, last_loss = 0, 0.0
for episode in range(16):
    state, _ = env.reset(seed=episode)
    done, ep_reward = False, 0.0
    while not done:
        eps = max(0.05, 1.0 - step_count / 500)
        if random.random() < eps:
            action = random.randrange(len(TORQUES))
        else:
            with torch.no_grad():
                action = policy_net(torch.from_numpy(state).unsqueeze(0)).argmax().item()
        next_state, reward, terminated, truncated, _ = env.step(TORQUES[action:action + 1])
        done = terminated or truncated  # expect: truncation
        memory.append((state, action, reward / 10, next_state, done))
        state = next_state
        ep_reward += reward
        step_count += 1
        if len(memory) > 200:
            last_loss = optimize()
        if step_count % 100 == 0:
            target_net.load_state_dict(policy_net.state_dict())
    if episode % 4 == 3:
        print(f"episode {episode} reward {ep_reward:.1f} loss {last_loss:.4f}")
env.close()
