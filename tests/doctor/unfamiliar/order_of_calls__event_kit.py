import math
from typing import Callable

import torch


class Fit:
    """A minimal event-driven fitting kit. `on(event, f)` registers, the loop fires."""

    def __init__(self, f: Callable, pars, data, **kw):
        self.f, self.pars, self.data = f, list(pars), data
        self.o = torch.optim.Adam(self.pars, **kw)
        self.events, self.loss, self.k = {}, None, 0

    def on(self, event, g):
        self.events.setdefault(event, []).append(g)
        return self

    def fire(self, event):
        for g in self.events.get(event, ()):
            g(self)

    def go(self, steps):
        for self.k, batch in zip(range(steps), self.data):
            self.fire("batch")
            self.loss = self.f(*batch)
            self.loss.backward()
            self.fire("backward")
            self.o.step()
            self.fire("step")
        return self


def spectra(n=128):
    """Two Lorentz lines of unknown position seen through noise; recover position from the channel counts."""
    ch = torch.linspace(0, 1, 32)
    while True:
        c = torch.rand(n, 2).sort(1).values
        s = sum(1 / (1 + ((ch - c[:, i:i + 1]) / 0.04) ** 2) for i in (0, 1))
        yield s + 0.05 * torch.randn_like(s), c


torch.manual_seed(8)
W = [(torch.randn(48, 32) / math.sqrt(32)).requires_grad_(), (torch.randn(2, 48) / 7).requires_grad_()]
b = [torch.zeros(48, requires_grad=True), torch.full((2,), 0.5, requires_grad=True)]


def model(s):
    return torch.addmm(b[1], torch.relu(torch.addmm(b[0], s, W[0].T)), W[1].T)


def misfit(s, c):
    return (model(s) - c).abs().mean()


fit = Fit(misfit, W + b, spectra(), lr=2e-3)
fit.on("backward", lambda t: torch.nn.utils.clip_grad_norm_(t.pars, 1.0))
fit.on("backward", lambda t: t.o.zero_grad())  # expect: order-of-calls
fit.on("step", lambda t: t.k % 100 == 0 and print(f"{t.k:4d} mean |dc| = {t.loss.item():.4f}"))
fit.on("step", lambda t: [g.update(lr=g["lr"] * 0.998) for g in t.o.param_groups])
fit.go(500)
print("held out:", misfit(*next(spectra())).item())
