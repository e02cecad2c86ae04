import copy
import gymnasium as gym
import numpy as np
import torch
from torch import nn, optim
import torch.nn.functional as F

torch.manual_seed(123)
np.random.seed(123)


class ReplayBuffer:
    def __init__(self, capacity, obs_dim, act_dim):
        self.obs = torch.zeros(capacity, obs_dim)
        self.act = torch.zeros(capacity, act_dim)
        self.rew = torch.zeros(capacity, 1)
        self.obs2 = torch.zeros(capacity, obs_dim)
        self.term = torch.zeros(capacity, 1)
        self.capacity, self.ptr, self.full = capacity, 0, False

    def push(self, o, a, r, o2, term):
        i = self.ptr
        self.obs[i], self.act[i], self.rew[i] = torch.from_numpy(o), torch.from_numpy(a), r
        self.obs2[i], self.term[i] = torch.from_numpy(o2), float(term)
        self.ptr = (i + 1) % self.capacity
        self.full = self.full or self.ptr == 0

    def sample(self, n):
        idx = torch.randint(0, self.capacity if self.full else self.ptr, (n,))
        return self.obs[idx], self.act[idx], self.rew[idx], self.obs2[idx], self.term[idx]


class Actor(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(3, 64), nn.Linear(64, 1)

    def forward(self, x):
        return torch.tanh(self.fc2(F.relu(self.fc1(x)))) * 2


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(4, 64), nn.Linear(64, 1)

    def forward(self, x, a):
        return self.fc2(F.relu(self.fc1(torch.cat([x, a], dim=-1))))


class DDPG:
    def __init__(self, gamma=0.98, tau=0.01):
        self.actor, self.critic = Actor(), Critic()
        self.actor_target, self.critic_target = copy.deepcopy(self.actor), copy.deepcopy(self.critic)
        self.actor_optim = optim.Adam(self.actor.parameters(), lr=1e-3)
        self.critic_optim = optim.Adam(self.critic.parameters(), lr=2e-3)
        self.gamma, self.tau = gamma, tau

    def act(self, obs, noise):
        with torch.no_grad():
            a = self.actor(torch.from_numpy(obs)).numpy()
        return np.clip(a + noise * np.random.randn(1), -2, 2).astype(np.float32)

    def update(self, batch):
        states, actions, rewards, next_states, term = batch
        with torch.no_grad():
            q_next = self.critic_target(next_states, self.actor_target(next_states))
            y = rewards + self.gamma * (1 - term) * q_next
        critic_loss = F.mse_loss(self.critic(states, actions), y)
        self.critic_optim.zero_grad()
        critic_loss.backward()
        self.critic_optim.step()

        actor_loss = -self.critic(states, actions).mean()  # expect: stored-value
        self.actor_optim.zero_grad()
        actor_loss.backward()
        self.actor_optim.step()

        self.soft_update(self.actor_target, self.actor)
        self.soft_update(self.critic_target, self.critic)
        return critic_loss.item(), actor_loss.item()

    @torch.no_grad()
    def soft_update(self, target, source):
        for tp, p in zip(target.parameters(), source.parameters()):
            tp.lerp_(p, self.tau)


def main():
    env = gym.make("Pendulum-v1")
    agent, buffer = DDPG(), ReplayBuffer(5000, 3, 1)
    steps = 0
    for episode in range(4):
        obs, _ = env.reset(seed=episode)
        score, finished = 0.0, False
        while not finished:
            action = agent.act(obs, noise=0.4)
            obs2, r, terminated, truncated, _ = env.step(action)
            buffer.push(obs, action, 0.1 * r, obs2, terminated)
            score, obs, steps = score + r, obs2, steps + 1
            finished = terminated or truncated
            if steps > 128:
                c_loss, a_loss = agent.update(buffer.sample(64))
        if steps > 128:
            print(f"episode {episode} score {score:.1f} critic {c_loss:.3f} actor {a_loss:.3f}")


if __name__ == "__main__":
    main()
