# analytic policy gradient: the simulator is differentiable, costs are backpropagated through time
import torch
from torch import nn


class Drone:
    DT = 0.1

    def __init__(self, n, gen):
        self.state = torch.randn(n, 4, generator=gen) * torch.tensor([1.0, 1.0, 0.3, 0.3])

    def simulate(self, thrust):
        p, v = self.state.split(2, dim=1)
        v = v + self.DT * (2.0 * torch.tanh(thrust) - 0.2 * v)
        p = p + self.DT * v
        self.state = torch.cat((p, v), 1)
        stage_cost = p.square().sum(1) + 0.1 * v.square().sum(1) + 0.01 * thrust.square().sum(1)
        return self.state, stage_cost


class Controller(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 2, bias=False)
        self.res = nn.Sequential(nn.Linear(4, 24), nn.Softplus(), nn.Linear(24, 2))
        nn.init.zeros_(self.res[2].weight)

    def forward(self, s):
        return self.lin(s) + self.res(s) - self.res(torch.zeros_like(s))


def main(iters=100, horizon=16, n=32):
    torch.manual_seed(0)
    gen = torch.Generator().manual_seed(1)
    ctrl, tailvalue = Controller(), nn.Sequential(nn.Linear(4, 32), nn.ELU(), nn.Linear(32, 1), nn.Softplus())
    opt_c = torch.optim.Adam(ctrl.parameters(), lr=1e-2)
    opt_v = torch.optim.Adam(tailvalue.parameters(), lr=5e-3)
    for it in range(iters):
        drone = Drone(n, gen)
        s, cost, seen, stage = drone.state, 0.0, [], []
        for k in range(horizon):
            seen.append(s.detach())
            s, c = drone.simulate(ctrl(s))
            stage.append(c)
            cost = cost + 0.95 ** k * c
        # the tail cost must push the controller too, through s; the tail net itself is trained below
        whole = (cost + 0.95 ** horizon * tailvalue(s).squeeze(1)).mean()
        gc = torch.autograd.grad(whole, list(ctrl.parameters()))
        for p, g in zip(ctrl.parameters(), gc):
            p.grad = g.clamp(-1, 1)
        opt_c.step()

        with torch.no_grad():
            y = tailvalue(s).squeeze(1)
            ys = []
            for c in reversed(stage):
                y = c + 0.95 * y
                ys.append(y)
        ys = torch.stack(ys[::-1])
        verr = (tailvalue(torch.stack(seen)).squeeze(-1) - ys).pow(2).mean()
        opt_v.zero_grad()
        verr.backward()
        opt_v.step()
        if it % 20 == 0 or it == iters - 1:
            print(f"{it:4d} cost {sum(stage).mean().item():8.3f} tail error {verr.item():8.3f}")


main()
