import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.optim as optim


class PolicyNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.h = nn.Linear(4, 64)
        self.o = nn.Linear(64, 2)

    def forward(self, s):
        return torch.log_softmax(self.o(torch.relu(self.h(s))), dim=-1)


class ValueNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.h = nn.Linear(4, 64)
        self.o = nn.Linear(64, 1)

    def forward(self, s):
        return self.o(torch.relu(self.h(s)))[..., 0]


torch.manual_seed(0)
np.random.seed(0)
env = gym.make("CartPole-v1")
pi, V = PolicyNet(), ValueNet()
pi_optim = optim.Adam(pi.parameters(), lr=1e-3)
v_optim = optim.Adam(V.parameters(), lr=5e-3)
gamma = 0.98
lengths = []

for episode in range(40):
    s, _ = env.reset(seed=episode)
    s, t = torch.from_numpy(s), 0
    while True:
        with torch.no_grad():
            probs = pi(s).exp().numpy().astype(np.float64)
        a = int(np.random.choice(2, p=probs / probs.sum()))
        s2, r, terminated, truncated, _ = env.step(a)
        s2 = torch.from_numpy(s2)

        # critic
        target = r + gamma * V(s2).detach() * (not terminated)
        delta = target - V(s)
        v_optim.zero_grad()
        delta.pow(2).backward()
        v_optim.step()

        # actor, recompute the log probability with gradient
        logp = pi(s)
        entropy = -(logp.exp() * logp).sum()
        pi_loss = -logp[a] * delta.item() - 0.01 * entropy
        pi_optim.zero_grad()
        pi_loss.backward()
        pi_optim.step()

        s, t = s2, t + 1
        if terminated or truncated:
            break
    lengths.append(t)
    if episode % 10 == 9:
        print(episode + 1, np.mean(lengths[-10:]), round(delta.item(), 3))
