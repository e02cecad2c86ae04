import copy
import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


class Actor(nn.Module):
    def __init__(self, state_dim, action_dim, max_action):
        super(Actor, self).__init__()
        self.l1 = nn.Linear(state_dim, 64)
        self.l2 = nn.Linear(64, 64)
        self.l3 = nn.Linear(64, action_dim)
        self.max_action = max_action

    def forward(self, state):
        a = F.relu(self.l1(state))
        a = F.relu(self.l2(a))
        return self.max_action * torch.tanh(self.l3(a))


class Critic(nn.Module):
    def __init__(self, state_dim, action_dim):
        super(Critic, self).__init__()
        mk = lambda: nn.Sequential(nn.Linear(state_dim + action_dim, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(),
                                   nn.Linear(64, 1))
        self.q1, self.q2 = mk(), mk()

    def forward(self, s, a):
        sa = torch.cat([s, a], 1)
        return self.q1(sa), self.q2(sa)

    def Q1(self, s, a):
        return self.q1(torch.cat([s, a], 1))


class TD3(object):
    def __init__(self, state_dim, action_dim, max_action):
        self.actor = Actor(state_dim, action_dim, max_action)
        self.actor_target = copy.deepcopy(self.actor)
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), lr=1e-3)
        self.critic = Critic(state_dim, action_dim)
        self.critic_target = copy.deepcopy(self.critic)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), lr=1e-3)
        self.max_action = max_action
        self.total_it = 0

    def select_action(self, state):
        state = torch.FloatTensor(state.reshape(1, -1))
        return self.actor(state).cpu().data.numpy().flatten()

    def train(self, batch, discount=0.98, tau=0.01, policy_noise=0.4, noise_clip=0.8, policy_freq=2):
        self.total_it += 1
        state, action, next_state, reward, not_done = batch
        with torch.no_grad():
            noise = (torch.randn_like(action) * policy_noise).clamp(-noise_clip, noise_clip)
            next_action = (self.actor_target(next_state) + noise).clamp(-self.max_action, self.max_action)
            target_Q1, target_Q2 = self.critic_target(next_state, next_action)
            target_Q = reward + not_done * discount * torch.min(target_Q1, target_Q2)
        current_Q1, current_Q2 = self.critic(state, action)
        critic_loss = F.mse_loss(current_Q1, target_Q) + F.mse_loss(current_Q2, target_Q)
        self.critic_optimizer.zero_grad()
        critic_loss.backward()
        self.critic_optimizer.step()

        if self.total_it % policy_freq == 0:
            actor_loss = -self.critic.Q1(state, self.actor(state)).mean()
            self.actor_optimizer.zero_grad()
            actor_loss.backward()
            self.actor_optimizer.step()
            for param, target_param in zip(self.critic.parameters(), self.critic_target.parameters()):
                target_param.data.copy_(tau * param.data + (1 - tau) * target_param.data)
            for param, target_param in zip(self.actor.parameters(), self.actor_target.parameters()):
                target_param.data.copy_(tau * param.data + (1 - tau) * target_param.data)
        return critic_loss.item()


torch.manual_seed(0)
np.random.seed(0)
env = gym.make("Pendulum-v1")
env.action_space.seed(0)
policy = TD3(3, 1, 2.0)
S, A, S2, R, ND = [], [], [], [], []
state, _ = env.reset(seed=0)
episode_reward = 0
for t in range(1000):
    if t < 200:
        action = env.action_space.sample()
    else:
        action = (policy.select_action(state) + np.random.normal(0, 0.2, size=1)).clip(-2, 2).astype(np.float32)
    next_state, reward, terminated, truncated, _ = env.step(action)
    done = terminated or truncated
    # running into the time limit does not end the task
    S.append(state), A.append(action), S2.append(next_state), R.append([reward * 0.1]), ND.append([1.0 - float(terminated)])
    state = next_state
    episode_reward += reward
    if t >= 200:
        ind = np.random.randint(0, len(S), size=64)
        batch = [torch.FloatTensor(np.array([c[i] for i in ind])) for c in (S, A, S2, R, ND)]
        closs = policy.train(batch)
    if done:
        print(f"T: {t + 1} Reward: {episode_reward:.1f}")
        state, _ = env.reset()
        episode_reward = 0
