# Two firms learn quantity schedules q(shock, own cost) for a linear inverse demand curve.
import torch
from torch.nn.functional import softplus

torch.manual_seed(101)


def firm(width=16):
    p = [torch.randn(width, 2), torch.zeros(width), 0.3 * torch.randn(1, width), torch.zeros(1)]
    return [t.requires_grad_(True) for t in p]


def supply(p, z):
    A, a, B, b = p
    return softplus(torch.tanh(z @ A.T + a) @ B.T + b).squeeze(-1)


def markets(n):
    while True:
        yield 4 + torch.randn(n).clamp(-2, 2), 0.5 + torch.rand(n), 0.5 + torch.rand(n)


profit = lambda q, rival, d, c: q * (d - q - rival - c)

red, blue = firm(), firm()
opt_red = torch.optim.SGD(red, lr=0.02)
opt_blue = torch.optim.SGD(blue, lr=0.02)

for t, (d, c1, c2) in zip(range(600), markets(64)):
    q_red = supply(red, torch.stack([d - 4, c1], 1))
    q_blue = supply(blue, torch.stack([d - 4, c2], 1))

    u_red = profit(q_red, q_blue.detach(), d, c1)
    opt_red.zero_grad()
    (-u_red.mean()).backward()
    opt_red.step()

    u_blue = profit(q_blue, q_red.detach(), d, c2)
    (-u_blue.mean()).backward()
    opt_blue.step()  # expect: missing-zero-grad

    if t % 100 == 99:
        nash = ((d - 1.0) / 3).mean()
        print(f"t={t + 1}: q_red {q_red.mean().item():.3f} q_blue {q_blue.mean().item():.3f} (Cournot about {nash:.3f}) "
              f"profits {u_red.mean().item():.3f} {u_blue.mean().item():.3f}")
