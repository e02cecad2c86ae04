# REINFORCE on a small "park the cart" problem, continuous force
import math
import random
import torch

torch.manual_seed(3)
random.seed(3)


class Park:
    def reset(self):
        self.x, self.v, self.t = random.uniform(-2, 2), 0.0, 0
        return [self.x, self.v]

    def step(self, force):
        force = max(-2.0, min(2.0, force))
        self.v = 0.9 * self.v + 0.2 * force
        self.x += 0.3 * self.v
        self.t += 1
        reward = -abs(self.x) - 0.1 * self.v ** 2
        return [self.x, self.v], reward, self.t == 20


class GaussPolicy(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.l1 = torch.nn.Linear(2, 32)
        self.l2 = torch.nn.Linear(32, 1)
        self.log_std = torch.nn.Parameter(torch.tensor([-0.5]))

    def forward(self, s):
        mean = 2.0 * torch.tanh(self.l2(torch.relu(self.l1(s))).data)  # expect: graph-cut
        return mean, self.log_std.clamp(-2.0, 0.5)


def log_normal(a, mean, log_std):
    return -0.5 * ((a - mean) / log_std.exp()) ** 2 - log_std - 0.5 * math.log(2 * math.pi)


env = Park()
policy = GaussPolicy()
optimizer = torch.optim.Adam(policy.parameters(), lr=5e-3)

baseline = None
for ep in range(120):
    s, done = env.reset(), False
    states, actions, rewards = [], [], []
    while not done:
        with torch.no_grad():
            mean, log_std = policy(torch.tensor(s))
            a = (mean + log_std.exp() * torch.randn(1)).item()
        states.append(s)
        actions.append([a])
        s, r, done = env.step(a)
        rewards.append(r)

    G, returns = 0.0, []
    for r in reversed(rewards):
        G = r + 0.97 * G
        returns.insert(0, G)
    returns = torch.tensor(returns)
    baseline = returns.mean() if baseline is None else 0.95 * baseline + 0.05 * returns.mean()
    adv = (returns - baseline) / 5.0

    mean, log_std = policy(torch.tensor(states))
    logp = log_normal(torch.tensor(actions), mean, log_std).sum(-1)
    loss = -(logp * adv).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if ep % 30 == 29:
        print(f"ep {ep + 1}: return {sum(rewards):.2f}, std {policy.log_std.exp().item():.3f}")
