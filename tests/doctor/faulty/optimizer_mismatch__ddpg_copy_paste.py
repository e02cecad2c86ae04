import random
from collections import deque

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim

SEED = 77
BUFFER_SIZE, BATCH_SIZE = 10_000, 64
GAMMA, TAU = 0.98, 0.01
LR_ACTOR, LR_CRITIC = 1e-3, 2e-3


class Actor(nn.Module):
    def __init__(self, state_size, action_size, fc1=64):
        super().__init__()
        self.fc1 = nn.Linear(state_size, fc1)
        self.fc2 = nn.Linear(fc1, action_size)

    def forward(self, state):
        return 2 * torch.tanh(self.fc2(F.relu(self.fc1(state))))


class Critic(nn.Module):
    def __init__(self, state_size, action_size, fc1=64):
        super().__init__()
        self.fc1 = nn.Linear(state_size + action_size, fc1)
        self.fc2 = nn.Linear(fc1, 1)

    def forward(self, state, action):
        return self.fc2(F.relu(self.fc1(torch.cat((state, action), dim=1))))


class Agent:
    def __init__(self, state_size, action_size):
        self.actor_local = Actor(state_size, action_size)
        self.actor_target = Actor(state_size, action_size)
        self.actor_target.load_state_dict(self.actor_local.state_dict())
        self.actor_optimizer = optim.Adam(self.actor_local.parameters(), lr=LR_ACTOR)

        self.critic_local = Critic(state_size, action_size)
        self.critic_target = Critic(state_size, action_size)
        self.critic_target.load_state_dict(self.critic_local.state_dict())
        self.critic_optimizer = optim.Adam(self.critic_target.parameters(), lr=LR_CRITIC)  # expect: optimizer-mismatch
        self.memory = deque(maxlen=BUFFER_SIZE)

    def act(self, state, sigma=0.3):
        with torch.no_grad():
            action = self.actor_local(torch.from_numpy(state).unsqueeze(0)).squeeze(0).numpy()
        return np.clip(action + sigma * np.random.standard_normal(1), -2, 2).astype(np.float32)

    def step(self, state, action, reward, next_state, terminated):
        self.memory.append((state, action, [reward], next_state, [float(terminated)]))
        if len(self.memory) > 2 * BATCH_SIZE:
            self.learn(random.sample(self.memory, BATCH_SIZE))

    def learn(self, experiences):
        states, actions, rewards, next_states, terms = (
            torch.tensor(np.asarray(x), dtype=torch.float32) for x in zip(*experiences))
        with torch.no_grad():
            q_next = self.critic_target(next_states, self.actor_target(next_states))
            q_target = rewards + GAMMA * q_next * (1 - terms)
        critic_loss = F.mse_loss(self.critic_local(states, actions), q_target)
        self.critic_local.zero_grad()
        critic_loss.backward()
        self.critic_optimizer.step()

        actor_loss = -self.critic_local(states, self.actor_local(states)).mean()
        self.actor_optimizer.zero_grad()
        actor_loss.backward()
        self.actor_optimizer.step()

        for local, target in ((self.critic_local, self.critic_target), (self.actor_local, self.actor_target)):
            for tp, lp in zip(target.parameters(), local.parameters()):
                tp.data.copy_(TAU * lp.data + (1.0 - TAU) * tp.data)


random.seed(SEED)
np.random.seed(SEED)
torch.manual_seed(SEED)
env = gym.make("Pendulum-v1")
agent = Agent(3, 1)
state, _ = env.reset(seed=SEED)
score = 0
for t in range(1, 601):
    action = agent.act(state)
    next_state, reward, terminated, truncated, _ = env.step(action)
    agent.step(state, action, reward / 10, next_state, terminated)
    state, score = next_state, score + reward
    if terminated or truncated:
        print("step", t, "score", round(float(score), 1))
        score = 0
        state, _ = env.reset()
