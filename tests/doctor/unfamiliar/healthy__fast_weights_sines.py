"""Meta-learned starting point for sensor calibration curves: adapt on ten points, judge on twenty others."""
import torch
import torch.nn as nn
from torch.func import functional_call


def sensors(m, k):
    amp, ph = 0.5 + 2 * torch.rand(m, 1, 1), 3.14 * torch.rand(m, 1, 1)
    x = 6 * torch.rand(m, k, 1) - 3
    return x, amp * torch.sin(x + ph)


class Curve(nn.Module):
    def __init__(self, h=32):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(1, h), nn.Linear(h, h), nn.Linear(h, 1)

    def forward(self, x):
        return self.c(torch.tanh(self.b(torch.tanh(self.a(x)))))


def misfit(net, w, x, y):
    return (functional_call(net, w, (x,)) - y).square().mean()


def adapt(net, w, x, y, rate, steps=2, second_order=True):
    for _ in range(steps):
        grads = torch.autograd.grad(misfit(net, w, x, y), list(w.values()), create_graph=second_order)
        w = {k: p - rate[k].exp() * g for (k, p), g in zip(w.items(), grads)}
    return w


def main():
    torch.manual_seed(100)
    net = Curve()
    rate = {k: torch.tensor(-4.0, requires_grad=True) for k, _ in net.named_parameters()}
    outer = torch.optim.Adam([*net.parameters(), *rate.values()], lr=3e-3)
    for epoch in range(100):
        x, y = sensors(4, 30)
        outer.zero_grad()
        total = 0.0
        for xi, yi in zip(x, y):
            w = adapt(net, dict(net.named_parameters()), xi[:10], yi[:10], rate)
            loss = misfit(net, w, xi[10:], yi[10:]) / len(x)
            loss.backward()
            total += loss.item()
        outer.step()
        if epoch % 25 == 0:
            xt, yt = (t[0] for t in sensors(1, 30))
            w = adapt(net, dict(net.named_parameters()), xt[:10], yt[:10], rate, second_order=False)
            print(f"epoch {epoch:3d} query {total:.3f} unseen {misfit(net, w, xt[10:], yt[10:]).item():.3f}")
    print({k: round(v.exp().item(), 4) for k, v in rate.items()})


main()
