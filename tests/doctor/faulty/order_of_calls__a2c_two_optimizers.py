import numpy as np
import torch
from torch import nn
from torch.distributions import Normal

torch.manual_seed(17)
np.random.seed(17)

# Scalar LQR with process noise, regulated by a Gaussian policy. Infinite horizon, no episodes.
A_SYS, B_SYS, Q_COST, R_COST = 0.98, 0.25, 1.0, 0.05


def lqr_step(x, u):
    cost = Q_COST * x ** 2 + R_COST * u ** 2
    x_next = A_SYS * x + B_SYS * u + 0.05 * torch.randn_like(x)
    return x_next.clamp(-3, 3), -cost


class Actor(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 1))
        self.log_std = nn.Parameter(torch.tensor([-0.7]))

    def forward(self, x):
        return Normal(self.net(x), self.log_std.clamp(-3, 1).exp())


actor = Actor()
critic = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 1))
optimizers = {
    "actor": torch.optim.Adam(actor.parameters(), lr=1e-3),
    "critic": torch.optim.Adam(critic.parameters(), lr=5e-3),
}
gamma, T, N = 0.95, 8, 16
x = torch.randn(N, 1)
scores = []

for update in range(250):
    xs, us, rs = [], [], []
    for _ in range(T):
        with torch.no_grad():
            u = actor(x).sample()
            x_next, r = lqr_step(x, u)
        xs.append(x); us.append(u); rs.append(r)
        x = x_next
    xs, us, rs = torch.stack(xs), torch.stack(us), torch.stack(rs)   # each [T, N, 1]

    with torch.no_grad():
        ret = critic(x)
        returns = []
        for r in reversed(rs.unbind(0)):
            ret = r + gamma * ret
            returns.insert(0, ret)
        returns = torch.stack(returns)

    values = critic(xs)
    critic_loss = (returns - values).square().mean()
    optimizers["critic"].zero_grad()
    critic_loss.backward()
    optimizers["critic"].step()

    advantage = (returns - values).detach()
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-6)
    actor_loss = -(actor(xs).log_prob(us) * advantage).mean()
    optimizers["actor"].zero_grad()
    actor_loss.backward()
    optimizers["critic"].step()  # expect: order-of-calls

    scores.append(rs.mean().item())
    if update % 50 == 49:
        print(f"{update + 1}: mean reward {np.mean(scores[-50:]):.3f}, critic {critic_loss.item():.3f}")
