import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

import gymnasium as gym


class ActorCriticAgent:
    """One-step actor-critic (Sutton & Barto 13.5), two networks, two optimizers."""

    def __init__(self, n_obs, n_act, gamma=0.99, lr_actor=1e-3, lr_critic=3e-3):
        self.actor = nn.Sequential(nn.Linear(n_obs, 64), nn.ReLU(), nn.Linear(64, n_act))
        self.critic = nn.Sequential(nn.Linear(n_obs, 64), nn.ReLU(), nn.Linear(64, 1))
        self.opt_a = torch.optim.Adam(self.actor.parameters(), lr=lr_actor)
        self.opt_c = torch.optim.Adam(self.critic.parameters(), lr=lr_critic)
        self.gamma = gamma

    def act(self, obs):
        logits = self.actor(torch.from_numpy(obs).float())
        dist = torch.distributions.Categorical(logits=logits)
        a = dist.sample()
        return a.item(), dist.log_prob(a)

    def update(self, obs, log_prob, reward, next_obs, terminated):
        obs = torch.from_numpy(obs).float()
        next_obs = torch.from_numpy(next_obs).float()

        value = self.critic(obs)
        next_value = self.critic(next_obs)
        td_target = reward + self.gamma * next_value * (0.0 if terminated else 1.0)  # expect: target-not-detached
        td_error = td_target - value

        critic_loss = td_error.pow(2).mean()
        self.opt_c.zero_grad()
        critic_loss.backward()
        self.opt_c.step()

        actor_loss = -(log_prob * td_error.detach()).mean()
        self.opt_a.zero_grad()
        actor_loss.backward()
        self.opt_a.step()
        return critic_loss.item(), actor_loss.item()


def main():
    torch.manual_seed(11)
    np.random.seed(11)
    env = gym.make("CartPole-v1")
    agent = ActorCriticAgent(4, 2)
    lengths = []
    for ep in range(25):
        obs, _ = env.reset(seed=ep)
        n = 0
        done = False
        while not done:
            action, logp = agent.act(obs)
            next_obs, reward, terminated, truncated, _ = env.step(action)
            agent.update(obs, logp, reward, next_obs, terminated)
            obs = next_obs
            done = terminated or truncated
            n += 1
        lengths.append(n)
    print("episode lengths:", lengths)


if __name__ == "__main__":
    main()
