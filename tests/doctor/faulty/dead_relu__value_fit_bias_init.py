import torch
from torch import nn


def init(m):
    if isinstance(m, nn.Linear):
        nn.init.xavier_uniform_(m.weight)
        nn.init.zeros_(m.bias)


class ValueNet(nn.Module):
    """state value of a car on a hill, inputs scaled to [-1, 1]"""

    def __init__(self, width=50):
        super().__init__()
        self.a = nn.Linear(2, width)
        self.b = nn.Linear(width, width)
        self.out = nn.Linear(width, 1)
        self.apply(init)
        # few active units in the beginning: sparse features
        nn.init.constant_(self.a.bias, -4.0)

    def forward(self, s):
        s = nn.functional.relu(self.a(s))  # expect: dead-relu
        s = torch.tanh(self.b(s))
        return self.out(s)


@torch.no_grad()
def returns(s, gamma=0.95, horizon=50):
    x, v = s[:, 0].clone(), s[:, 1].clone()
    g = torch.zeros(len(s))
    for k in range(horizon):
        push = torch.sign(v)
        v = (v + 0.02 * push - 0.05 * torch.cos(3 * x)).clamp(-1, 1)
        x = (x + 0.1 * v).clamp(-1, 1)
        g += gamma ** k * (x - 0.1)
    return g / 10


def main():
    gen = torch.Generator().manual_seed(5)
    torch.manual_seed(5)
    states = torch.rand(3000, 2, generator=gen) * 2 - 1
    target = returns(states)
    net = ValueNet()
    opt = torch.optim.RMSprop(net.parameters(), lr=2e-3)
    sched = torch.optim.lr_scheduler.StepLR(opt, step_size=10, gamma=0.5)
    print("target variance", target.var().item())
    for epoch in range(24):
        running = 0.0
        for idx in torch.randperm(len(states), generator=gen).split(100):
            pred = net(states[idx]).squeeze(-1)
            loss = nn.functional.smooth_l1_loss(pred, target[idx])
            opt.zero_grad(set_to_none=True)
            loss.backward()
            opt.step()
            running += loss.item()
        sched.step()
        if epoch % 6 == 5:
            print(f"epoch {epoch + 1}: {running / 30:.4f}")


main()
