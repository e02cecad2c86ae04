import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
from torch.distributions import Normal


class GaussianActor(nn.Module):
    def __init__(self, obs_size, act_size):
        super().__init__()
        self.fc1 = nn.Linear(obs_size, 64)
        self.fc2 = nn.Linear(64, 64)
        self.mu = nn.Linear(64, act_size)
        self.log_std = nn.Parameter(torch.full((act_size,), -0.2))

    def forward(self, obs):
        h = torch.tanh(self.fc2(torch.tanh(self.fc1(obs))))
        return Normal(self.mu(h), self.log_std.clamp(-3, 0.5).exp())


class A2C:
    def __init__(self, gamma=0.95, lr=7e-4):
        self.actor = GaussianActor(3, 1)
        self.critic = nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 1))
        self.actor_opt = torch.optim.Adam(self.actor.parameters(), lr=lr)
        self.critic_opt = torch.optim.Adam(self.critic.parameters(), lr=3 * lr)
        self.gamma = gamma
        self.clear()

    def clear(self):
        self.logps, self.entropies, self.obs, self.rewards = [], [], [], []

    def act(self, obs):
        x = torch.as_tensor(obs, dtype=torch.float32)
        dist = self.actor(x)
        a = dist.rsample()  # expect: rsample-in-score
        self.logps.append(dist.log_prob(a).sum(-1))
        self.entropies.append(dist.entropy().sum(-1))
        self.obs.append(x)
        return a.detach().numpy()

    def learn(self, last_obs):
        values = self.critic(torch.stack(self.obs)).squeeze(-1)
        with torch.no_grad():
            running = self.critic(torch.as_tensor(last_obs, dtype=torch.float32)).item()
        returns = []
        for r in reversed(self.rewards):
            running = r + self.gamma * running
            returns.insert(0, running)
        returns = torch.tensor(returns)
        advantages = returns - values

        critic_loss = advantages.pow(2).mean()
        adv = advantages.detach()
        actor_loss = -(torch.stack(self.logps) * adv).mean() - 1e-3 * torch.stack(self.entropies).mean()

        self.actor_opt.zero_grad()
        actor_loss.backward()
        self.actor_opt.step()
        self.critic_opt.zero_grad()
        critic_loss.backward()
        self.critic_opt.step()
        self.clear()
        return critic_loss.item()


def main(n_steps=20, updates=80):
    torch.manual_seed(21)
    env = gym.make("Pendulum-v1")
    agent = A2C()
    obs, _ = env.reset(seed=21)
    log, score, scores = [], 0.0, []
    for update in range(updates):
        for _ in range(n_steps):
            action = agent.act(obs)
            obs, reward, terminated, truncated, _ = env.step(np.clip(action, -2.0, 2.0))
            agent.rewards.append(0.1 * float(reward))
            score += float(reward)
            if terminated or truncated:
                break
        log.append(agent.learn(obs))
        if terminated or truncated:
            scores.append(score)
            score = 0.0
            obs, _ = env.reset()
    print("episode scores:", [round(s) for s in scores])
    print("critic loss: first %.3f, last %.3f" % (np.mean(log[:10]), np.mean(log[-10:])))


if __name__ == "__main__":
    main()
