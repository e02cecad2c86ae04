import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
from torch.distributions import Categorical


class Encoder(nn.Module):
    def __init__(self, obs_dim, features):
        super().__init__()
        self.register_buffer("scale", torch.tensor([2.4, 3.0, 0.2, 3.0]))
        self.scale.requires_grad = False
        self.lin = nn.Linear(obs_dim, features)

    def forward(self, x):
        return torch.relu(self.lin(x / self.scale))


class PolicyValue(nn.Module):
    def __init__(self, obs_dim=4, n_actions=2, features=48):
        super().__init__()
        self.encoder = Encoder(obs_dim, features)
        for p in self.encoder.parameters():
            p.requires_grad = False  # expect: frozen-parameter
        self.policy_head = nn.Linear(features, n_actions)
        self.value_head = nn.Linear(features, 1)

    def forward(self, x):
        z = self.encoder(x)
        return Categorical(logits=self.policy_head(z)), self.value_head(z).squeeze(-1)


def returns_of(rewards, gamma=0.99):
    out = np.zeros(len(rewards), dtype=np.float32)
    g = 0.0
    for i in reversed(range(len(rewards))):
        g = rewards[i] + gamma * g
        out[i] = g
    return torch.from_numpy(out)


def main():
    torch.manual_seed(14)
    env = gym.make("CartPole-v1")
    model = PolicyValue()
    opt = torch.optim.Adam(model.parameters(), lr=4e-3)
    lengths = []
    for episode in range(90):
        obs, _ = env.reset(seed=episode)
        observations, actions, rewards, over = [], [], [], False
        while not over:
            x = torch.from_numpy(obs)
            with torch.no_grad():
                a = model(x)[0].sample()
            observations.append(x)
            actions.append(a)
            obs, r, terminated, truncated, _ = env.step(int(a))
            rewards.append(r)
            over = terminated or truncated
        dist, values = model(torch.stack(observations))
        G = returns_of(rewards)
        adv = G - values.detach()
        policy_loss = -(dist.log_prob(torch.stack(actions)) * adv).mean()
        value_loss = nn.functional.huber_loss(values, G)
        opt.zero_grad()
        (policy_loss + value_loss).backward()
        opt.step()
        lengths.append(len(rewards))
        if episode % 30 == 29:
            print(f"episode {episode + 1}: {np.mean(lengths[-30:]):.1f} steps")


if __name__ == "__main__":
    main()
