import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


class PolicyNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.l1 = nn.Linear(4, 64)
        self.l2 = nn.Linear(64, 2)

    def forward(self, x):
        return F.log_softmax(self.l2(torch.tanh(self.l1(x))), dim=-1)


class Baseline(nn.Module):
    def __init__(self):
        super().__init__()
        self.l1 = nn.Linear(4, 64)
        self.l2 = nn.Linear(64, 1)

    def forward(self, x):
        return self.l2(torch.tanh(self.l1(x))).squeeze(-1)


class Reinforce:
    def __init__(self, env, gamma=0.98):
        self.env = env
        self.gamma = gamma
        self.policy = PolicyNet()
        self.baseline = Baseline()
        self.policy_optim = torch.optim.Adam(self.policy.parameters(), lr=1e-2)
        self.baseline_optim = torch.optim.Adam(self.baseline.parameters(), lr=1e-2)

    def choose(self, state):
        with torch.no_grad():
            p = self.policy(torch.from_numpy(state)).exp().numpy().astype(np.float64)
        return np.random.choice(2, p=p / p.sum())

    def episode(self, seed):
        s, _ = self.env.reset(seed=seed)
        states, actions, rewards = [], [], []
        over = False
        while not over:
            a = self.choose(s)
            states.append(s)
            actions.append(a)
            s, r, terminated, truncated, _ = self.env.step(int(a))
            rewards.append(r)
            over = terminated or truncated
        return np.array(states), np.array(actions), np.array(rewards)

    def update(self, states, actions, rewards):
        g, returns = 0.0, np.zeros(len(rewards), dtype=np.float32)
        for i in reversed(range(len(rewards))):
            g = rewards[i] + self.gamma * g
            returns[i] = g
        states = torch.from_numpy(states)
        returns = torch.from_numpy(returns) / 10.0
        actions = torch.from_numpy(actions)

        values = self.baseline(states)
        baseline_loss = F.mse_loss(values, returns)
        baseline_loss.backward()
        self.baseline_optim.zero_grad()  # expect: order-of-calls
        self.baseline_optim.step()

        logp = self.policy(states)[torch.arange(len(actions)), actions]
        policy_loss = -(logp * (returns - values.detach())).mean()
        self.policy_optim.zero_grad()
        policy_loss.backward()
        self.policy_optim.step()
        return baseline_loss.item()


def main():
    np.random.seed(0)
    torch.manual_seed(0)
    agent = Reinforce(gym.make("CartPole-v1"))
    lengths = []
    for ep in range(100):
        s, a, r = agent.episode(ep)
        bl = agent.update(s, a, r)
        lengths.append(len(r))
        if ep % 20 == 0:
            print("ep", ep, "mean length", np.mean(lengths[-20:]), "baseline loss", round(bl, 3))


if __name__ == "__main__":
    main()
