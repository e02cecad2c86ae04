import math
import random

import torch
import torch.nn as nn

# Fit a value function to Monte Carlo returns of a fixed controller (pendulum-like toy)


class Swing:
    def __init__(self, seed):
        self.rng = random.Random(seed)

    def episode(self, length=40):
        angle, speed = self.rng.uniform(-math.pi, math.pi), self.rng.uniform(-1, 1)
        states, rewards = [], []
        for t in range(length):
            states.append([math.cos(angle), math.sin(angle), speed, 1 - t / length])
            torque = -1.2 * speed - 0.8 * math.sin(angle) + self.rng.gauss(0, 0.1)
            speed += 0.1 * (-0.5 * math.sin(angle) + torque)
            angle += 0.1 * speed
            rewards.append(math.cos(angle) - 0.05 * torque ** 2)
        return states, rewards


def returns_to_go(rewards, gamma=0.95):
    g, out = 0.0, []
    for r in reversed(rewards):
        g = r + gamma * g
        out.append(g)
    return out[::-1]


class ValueTrainer:
    def __init__(self, hidden=64, lr=2e-3, clip=5.0):
        self.v = nn.Sequential(nn.Linear(4, hidden), nn.Tanh(), nn.Linear(hidden, 1))
        self.optim = torch.optim.Adam(self.v.parameters(), lr=lr)
        self.clip = clip

    def fit_batch(self, states, returns):
        values = self.v(states).squeeze(-1)
        loss = torch.mean((values - returns) ** 2)
        self.optim.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.v.parameters(), self.clip)
        self.optim.step  # expect: order-of-calls
        return loss.item(), norm.item()


def main():
    torch.manual_seed(5)
    toy = Swing(seed=5)
    states, returns = [], []
    for _ in range(40):
        s, r = toy.episode()
        states += s
        returns += returns_to_go(r)
    states, returns = torch.tensor(states), torch.tensor(returns)
    returns = (returns - returns.mean()) / returns.std()

    trainer = ValueTrainer()
    for epoch in range(15):
        stats = [trainer.fit_batch(states[i], returns[i]) for i in torch.randperm(len(states)).split(64)]
        mean_loss = sum(s[0] for s in stats) / len(stats)
        if epoch % 5 == 4:
            print(f"epoch {epoch + 1}: loss {mean_loss:.4f}, grad norm {stats[-1][1]:.3f}")


if __name__ == "__main__":
    main()
