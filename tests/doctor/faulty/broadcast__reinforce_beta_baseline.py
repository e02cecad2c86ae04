import torch
from torch import nn
from torch.distributions import Beta

torch.manual_seed(31)

# one-step pricing problem: the context gives the demand curve, the action in (0, 1) is the price
def revenue(ctx, price):
    demand = torch.sigmoid(4 * (ctx[:, 0] - price) + ctx[:, 1])
    return price * demand


class BetaPolicy(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(d, 32), nn.Tanh(), nn.Linear(32, 2))

    def forward(self, x):
        alpha, beta = (nn.functional.softplus(self.net(x)) + 1.0).unbind(-1)
        return Beta(alpha, beta)


policy = BetaPolicy(2)
baseline = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 1))
params = [{"params": policy.parameters(), "lr": 3e-3}, {"params": baseline.parameters(), "lr": 1e-2}]
opt = torch.optim.Adam(params)

for it in range(400):
    ctx = torch.rand(64, 2)
    dist = policy(ctx)
    with torch.no_grad():
        price = dist.sample().clamp(1e-6, 1 - 1e-6)
        reward = revenue(ctx, price)
    b = baseline(ctx)
    fit = nn.functional.mse_loss(b.squeeze(1), reward)
    advantage = reward - b.detach()  # expect: broadcast
    surrogate = -(dist.log_prob(price) * advantage).mean()
    loss = surrogate + fit - 1e-3 * dist.entropy().mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if it % 100 == 0:
        print(it, f"revenue {reward.mean():.4f} fit {fit:.4f}")
