# REINFORCE with baseline network on a stock-keeping problem (order 0..4 items per day)
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

CAPACITY, DAYS, ORDERS = 10, 15, 5


def simulate(policy, rng):
    stock = int(rng.integers(0, CAPACITY))
    states, actions, rewards = [], [], []
    for day in range(DAYS):
        x = [stock / CAPACITY, day / DAYS]
        with torch.no_grad():
            p = F.softmax(policy(torch.tensor(x)), dim=0).numpy().astype(float)
        a = int(rng.choice(ORDERS, p=p / p.sum()))
        stock = min(stock + a, CAPACITY)
        demand = int(rng.poisson(2))
        sold = min(stock, demand)
        stock -= sold
        states.append(x)
        actions.append(a)
        rewards.append(1.0 * sold - 0.3 * a - 0.05 * stock - 0.5 * (demand - sold))
    return states, actions, rewards


def run_epoch(policy, baseline, opt, rng, episodes=10):
    for layer in policy:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)  # expect: weights-overwritten
    avg = []
    for _ in range(episodes):
        states, actions, rewards = simulate(policy, rng)
        avg.append(sum(rewards))
        rtg = np.cumsum(rewards[::-1])[::-1].copy()
        s = torch.tensor(states)
        a = torch.tensor(actions)
        g = torch.tensor(rtg, dtype=torch.float32)

        b = baseline(s).squeeze(1)
        logp = F.log_softmax(policy(s), dim=1)[torch.arange(len(a)), a]
        policy_loss = -(logp * (g - b.detach())).mean()
        baseline_loss = F.mse_loss(b, g)
        opt.zero_grad()
        (policy_loss + 0.5 * baseline_loss).backward()
        opt.step()
    return float(np.mean(avg))


def main():
    torch.manual_seed(16)
    rng = np.random.default_rng(16)
    policy = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, ORDERS))
    baseline = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 1))
    opt = torch.optim.Adam([*policy.parameters(), *baseline.parameters()], lr=3e-3)
    for epoch in range(30):
        profit = run_epoch(policy, baseline, opt, rng)
        if epoch % 5 == 0:
            print(f"epoch {epoch:2d} average profit {profit:.2f}")


if __name__ == "__main__":
    main()
