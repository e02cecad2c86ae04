import torch
import torch.nn as nn
from torch.distributions import MultivariateNormal

torch.manual_seed(0)


class Darts:
    """The wind is seen, the throw is a 2-d aim; the score tells how near the bull was hit."""

    drift = torch.tensor([[0.9, -0.2], [0.3, 0.7]])

    def wind(self, n):
        return torch.randn(n, 2)

    def throw(self, wind, aim):
        hit = aim + wind @ self.drift
        return torch.exp(-hit.pow(2).sum(-1) / 2)


class Thrower(nn.Module):
    def __init__(self):
        super().__init__()
        self.mean = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 2))
        self.register_buffer("cov", 0.25 * torch.eye(2))

    def forward(self, wind):
        return MultivariateNormal(self.mean(wind), self.cov)


game = Darts()
thrower = Thrower()
optimizer = torch.optim.Adam(thrower.parameters(), lr=5e-3)
baseline = 0.0

for round_ in range(400):
    wind = game.wind(32)
    dist = thrower(wind)
    aim = dist.rsample()  # expect: rsample-in-score
    log_prob = dist.log_prob(aim)
    with torch.no_grad():
        score = game.throw(wind, aim)
    advantage = score - baseline
    baseline += 0.05 * (score.mean().item() - baseline)

    loss = -(advantage * log_prob).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if (round_ + 1) % 100 == 0:
        print(f"round {round_ + 1}: score {score.mean().item():.3f}")
