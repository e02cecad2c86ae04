import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


class ActorCriticNetwork(nn.Module):
    def __init__(self, n_inputs, fc1, fc2, n_actions, lr):
        super().__init__()
        self.fc1 = nn.Linear(n_inputs, fc1)
        self.fc2 = nn.Linear(fc1, fc2)
        self.pi = nn.Linear(fc2, n_actions)
        self.v = nn.Linear(fc2, 1)
        self.optimizer = torch.optim.Adam(self.parameters(), lr=lr)

    def forward(self, state):
        x = F.relu(self.fc1(state))
        x = F.relu(self.fc2(x))
        return self.pi(x), self.v(x)


class Agent:
    def __init__(self, gamma=0.97):
        self.gamma = gamma
        self.actor_critic = ActorCriticNetwork(4, 64, 64, 2, lr=5e-4)
        self.log_prob = None

    def choose_action(self, observation):
        logits, _ = self.actor_critic(torch.tensor(observation, dtype=torch.float).unsqueeze(0))
        dist = torch.distributions.Categorical(logits=logits)
        action = dist.sample()
        self.log_prob = dist.log_prob(action)
        return action.item()

    def learn(self, state, reward, state_, terminal):
        state = torch.tensor(state, dtype=torch.float).unsqueeze(0)
        state_ = torch.tensor(state_, dtype=torch.float).unsqueeze(0)
        _, value = self.actor_critic(state)
        with torch.no_grad():
            _, value_ = self.actor_critic(state_)
        delta = reward + self.gamma * value_ * (1 - int(terminal)) - value

        actor_loss = (self.log_prob * delta.detach()).sum()  # expect: wrong-sign
        critic_loss = delta.pow(2).sum()
        self.actor_critic.optimizer.zero_grad()
        (actor_loss + critic_loss).backward()
        self.actor_critic.optimizer.step()


torch.manual_seed(41)
env = gym.make("CartPole-v1")
agent = Agent()
history = []
for i in range(50):
    observation, _ = env.reset(seed=i)
    done, score = False, 0
    while not done:
        action = agent.choose_action(observation)
        observation_, reward, terminated, truncated, info = env.step(action)
        agent.learn(observation, reward, observation_, terminated)
        observation = observation_
        score += reward
        done = terminated or truncated
    history.append(score)
    if i % 10 == 9:
        print("episode", i + 1, "score %.1f" % np.mean(history[-10:]))
