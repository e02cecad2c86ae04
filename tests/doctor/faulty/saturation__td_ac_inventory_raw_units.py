"""Online actor-critic for a small warehouse. State: stock and last demand in screws, action: order 0/20000/40000 screws."""
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

rng = np.random.default_rng(3)
torch.manual_seed(3)

ORDERS = [0, 20000, 40000]


class Warehouse:
    def __init__(self):
        self.stock, self.demand = 60000.0, 20000.0

    def state(self):
        return np.array([self.stock, self.demand], dtype=np.float32)

    def step(self, k):
        self.demand = float(np.clip(20000 + 8000 * rng.standard_normal(), 2000, 40000))
        self.stock += ORDERS[k]
        sold = min(self.stock, self.demand)
        missed = self.demand - sold
        self.stock = min(self.stock - sold, 160000.0)
        profit = sold - 0.1 * self.stock - 0.5 * missed - 0.3 * ORDERS[k]
        return self.state(), profit / 40000.0


class Net(nn.Module):
    def __init__(self, out):
        super().__init__()
        self.hidden = nn.Linear(2, 40)
        self.out = nn.Linear(40, out)

    def forward(self, x):
        h = torch.tanh(self.hidden(x))  # expect: saturation
        return self.out(h)


actor, critic = Net(3), Net(1)
actor_optim = torch.optim.Adam(actor.parameters(), lr=5e-4)
critic_optim = torch.optim.Adam(critic.parameters(), lr=2e-3)
env, gamma = Warehouse(), 0.9
s = torch.from_numpy(env.state())
profits = []
for t in range(1800):
    logp = F.log_softmax(actor(s), dim=-1)
    k = int(torch.multinomial(logp.exp(), 1))
    nxt, r = env.step(k)
    nxt = torch.from_numpy(nxt)
    # the shop never closes: continuing task
    with torch.no_grad():
        y = r + gamma * critic(nxt)
    delta = y - critic(s)

    critic_optim.zero_grad()
    delta.square().sum().backward()
    critic_optim.step()

    actor_optim.zero_grad()
    (-(logp[k]) * delta.detach()).sum().backward()
    actor_optim.step()
    s = nxt
    profits.append(r)
    if (t + 1) % 300 == 0:
        print(f"{t + 1:5d} profit/day {np.mean(profits[-300:]):.3f}")
