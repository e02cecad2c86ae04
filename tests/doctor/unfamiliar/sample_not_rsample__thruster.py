"""Stochastic thruster policy, improved through a differentiable drift model (analytic policy gradient)."""
import torch
import torch.nn as nn


def main():
    torch.manual_seed(21)
    M, H, dt, tau = 96, 10, 0.15, 2e-3

    core = nn.Sequential(nn.Linear(4, 40), nn.SiLU(), nn.Linear(40, 40), nn.SiLU())
    mean_head = nn.Linear(40, 2)
    dev_head = nn.Linear(40, 2)
    bits = nn.ModuleDict({"core": core, "mean": mean_head, "dev": dev_head})
    opt = torch.optim.AdamW(bits.parameters(), lr=2e-3, weight_decay=0.0)

    current = torch.tensor([0.25, -0.1])                 # sideways push of the water

    def drift(x, u):
        pos, vel = x[:, :2], x[:, 2:]
        vel = vel + dt * (u - 0.4 * vel + current)
        return torch.cat([pos + dt * vel, vel], 1)

    def command(x):
        h = core(x)
        mu, sd = mean_head(h), 0.05 + 0.5 * torch.sigmoid(dev_head(h) - 1.0)
        u = torch.normal(mu, sd)  # expect: sample-not-rsample
        return u, torch.log(sd).sum(1)

    for it in range(150):
        x = torch.cat([torch.randn(M, 2), torch.zeros(M, 2)], 1)
        cost = x.new_zeros(M)
        for t in range(H):
            u, ent = command(x)
            x = drift(x, u)
            cost = cost + x[:, :2].square().sum(1) + 0.01 * u.square().sum(1) - tau * ent
        J = cost.mean()
        opt.zero_grad()
        J.backward()
        nn.utils.clip_grad_norm_(bits.parameters(), 5.0)
        opt.step()
        if it % 30 == 0 or it == 149:
            with torch.no_grad():
                miss = x[:, :2].norm(dim=1).mean()
            print(f"{it:4d} J={J.item():8.3f} miss={miss.item():.3f}")


if __name__ == "__main__":
    main()
