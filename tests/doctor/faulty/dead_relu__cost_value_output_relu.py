"""Fit a value function of a random-walk maintenance process (all costs, so values < 0)."""
import torch
import torch.nn as nn

torch.manual_seed(1)
GAMMA = 0.9


class ValueNet(nn.Module):
    def __init__(self, hidden=64):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(3, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 1),
            nn.ReLU(),  # expect: dead-relu
        )

    def forward(self, x):
        return self.layers(x).squeeze(-1)


def wear(state):
    """one step: the wear grows, sometimes the machine is repaired"""
    cost = -(0.5 + state.clamp(min=0).sum(dim=1))
    grown = state + 0.1 * torch.rand_like(state)
    repaired = torch.rand(len(state)) < 0.1
    nxt = torch.where(repaired.unsqueeze(1), torch.zeros_like(state), grown)
    scrapped = nxt.sum(dim=1) > 4
    return nxt, cost, scrapped.float()


value = ValueNet()
frozen = ValueNet()
frozen.load_state_dict(value.state_dict())
opt = torch.optim.Adam(value.parameters(), lr=1e-3)

state = torch.rand(64, 3)
for step in range(500):
    nxt, cost, scrapped = wear(state)
    with torch.no_grad():
        target = cost + GAMMA * (1 - scrapped) * frozen(nxt)
    loss = (value(state) - target).pow(2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 20 == 0:
        frozen.load_state_dict(value.state_dict())
    state = torch.where(scrapped.bool().unsqueeze(1), torch.rand_like(nxt), nxt)
    if step % 100 == 0:
        print(f"step {step} loss {loss.item():.4f} mean target {target.mean().item():.3f}")
