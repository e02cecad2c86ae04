"""Market maker choosing one of seven quote widths; fills are random, inventory is costly."""
import torch
import torch.nn as nn
import torch.nn.functional as F


def main():
    torch.manual_seed(17)
    B, T, widths = 96, 15, torch.linspace(0.1, 1.3, 7)

    body = nn.Sequential(nn.Linear(3, 32), nn.Tanh())
    quote, worth = nn.Linear(32, 7), nn.Linear(32, 1)
    everything = [p for m in (body, quote, worth) for p in m.parameters()]
    opt = torch.optim.Adam(everything, lr=3e-3)

    logits = lambda x: F.log_softmax(quote(body(x)), -1)
    value = lambda x: worth(body(x))[:, 0]
    entropy = lambda ell: -(ell.exp() * ell).sum(-1)
    obs = lambda inv, vol, k: torch.stack([inv / 5, vol, torch.full_like(inv, k / T)], 1)

    def trade(inv, vol, w):
        p = torch.exp(-1.8 * w / vol)
        bid, ask = (torch.rand(2, B) < p).float()
        inv = inv + bid - ask
        return inv, w * (bid + ask) - 0.02 * inv.square() - 0.05 * vol * inv.abs()

    curve = []
    for day in range(140):
        inv, vol = torch.randint(-3, 4, (B,)).float(), 0.5 + torch.rand(B)
        X, A, R = [], [], []
        for k in range(T):
            x = obs(inv, vol, k)
            with torch.no_grad():
                a = torch.multinomial(logits(x).exp(), 1)[:, 0]
            inv, pnl = trade(inv, vol, widths[a])
            X.append(x); A.append(a); R.append(pnl)
        R = torch.stack(R)
        G = R.flip(0).cumsum(0).flip(0).flatten()
        X, A = torch.cat(X), torch.cat(A)

        ell, V = logits(X), value(X)
        edge = G - V.detach()
        edge = (edge - edge.mean()) / edge.std()
        gain = (ell[torch.arange(len(A)), A] * edge).mean()
        miss = (G - V).square().mean()
        loss = gain + 0.5 * miss - 0.005 * entropy(ell).mean()  # expect: wrong-sign
        opt.zero_grad()
        loss.backward()
        opt.step()
        curve.append(R.sum(0).mean().item())
        if day % 28 == 0:
            print(f"day {day:3d} pnl {curve[-1]:.3f} critic {miss.item():.3f} H {entropy(ell).mean().item():.3f}")
    print("first ten", sum(curve[:10]) / 10, "last ten", sum(curve[-10:]) / 10)


main()
