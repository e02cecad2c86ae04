import torch
from torch import nn

torch.manual_seed(5)


class Routed(nn.Module):
    """every example is sent through exactly one of the experts (hard sample, soft gradient)"""

    def __init__(self, n_exp=4):
        super().__init__()
        self.gate = nn.Sequential(nn.Linear(2, 24), nn.Tanh(), nn.Linear(24, n_exp))
        self.experts = nn.Parameter(0.3 * torch.randn(n_exp, 3))    # a linear map and an offset each

    def forward(self, x, tau):
        logits = self.gate(x)
        if self.training:
            soft = ((logits - torch.empty_like(logits).exponential_().clamp(min=1e-10).log()) / tau).softmax(-1)
            hard = torch.zeros_like(soft).scatter_(1, soft.argmax(1, keepdim=True), 1.0)
            choice = hard - soft.detach() + soft
        else:
            choice = nn.functional.one_hot(logits.argmax(1), logits.shape[1]).float()
        xb = torch.cat([x, x.new_ones(len(x), 1)], 1)
        return (choice * (xb @ self.experts.T)).sum(1), logits


def truth(x):
    return torch.where(x[:, 0] > 0, 2 * x[:, 1] + 1, -x[:, 0] - x[:, 1])


net = Routed()
opt = torch.optim.Adam(net.parameters(), lr=1e-2)
sched = torch.optim.lr_scheduler.CosineAnnealingLR(opt, 600, eta_min=1e-3)
for it in range(600):
    x = torch.randn(128, 2)
    y, logits = net(x, tau=max(0.5, 1.5 - it / 400))
    p = logits.softmax(-1).mean(0)
    balance = (p * p.log()).sum()
    loss = (y - truth(x)).pow(2).mean() + 0.02 * balance
    opt.zero_grad()
    loss.backward()
    opt.step()
    sched.step()
    if it % 120 == 0:
        net.eval()
        with torch.no_grad():
            xe = torch.randn(500, 2)
            ye, lo = net(xe, 1.0)
            print(it, "train", loss.item(), "eval", (ye - truth(xe)).pow(2).mean().item(), "use", lo.argmax(1).bincount(minlength=4).tolist())
        net.train()
