"""Autoencoder with a discrete bottleneck: some binary bits and one categorical symbol, both straight-through."""
import torch
import torch.nn as nn
import torch.nn.functional as F


class RoundSTE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return torch.round(x)

    @staticmethod
    def backward(ctx, grad):
        return grad


def hard_one_hot(logits):
    soft = logits.softmax(dim=-1)
    hard = F.one_hot(soft.argmax(dim=-1), logits.shape[-1]).to(soft.dtype)
    return soft + (hard - soft).detach()


class DiscreteAE(nn.Module):
    def __init__(self, n_in, bits=6, symbols=8):
        super().__init__()
        self.bits = bits
        self.enc = nn.Sequential(nn.Linear(n_in, 64), nn.ReLU(), nn.Linear(64, bits + symbols))
        self.dec = nn.Sequential(nn.Linear(bits + symbols + 1, 64), nn.ReLU(), nn.Linear(64, n_in))

    def forward(self, x):
        h = self.enc(x)
        p = torch.sigmoid(h[:, : self.bits])
        b = RoundSTE.apply(p)
        c = hard_one_hot(h[:, self.bits :])
        # scale of the input in steps of 1/8, by the detach trick
        s = x.abs().mean(dim=1, keepdim=True)
        s = s + (torch.round(s * 8) / 8 - s).detach()
        return self.dec(torch.cat([b, c, s], dim=1)), c


def make_data(n, n_in, gen):
    centres = torch.randn(16, n_in, generator=gen) * 1.5
    idx = torch.randint(0, 16, (n,), generator=gen)
    return centres[idx] + 0.2 * torch.randn(n, n_in, generator=gen)


def main():
    torch.manual_seed(1)
    data = make_data(2000, 12, torch.Generator().manual_seed(1))
    model = DiscreteAE(12)
    opt = torch.optim.Adam(model.parameters(), lr=2e-3)
    for step in range(1, 701):
        x = data[torch.randint(0, len(data), (64,))]
        out, code = model(x)
        usage = code.mean(dim=0)
        spread = (usage * (usage + 1e-6).log()).sum()           # minus entropy of the symbols' use
        loss = F.mse_loss(out, x) + 0.05 * spread
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % 140 == 0:
            used = (code.detach().sum(0) > 0).sum().item()
            print(f"step {step} loss {loss.item():.4f} symbols used {used}")


main()
