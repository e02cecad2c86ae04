"""TD(0) evaluation of a fixed policy on a vectorised random walk."""
from dataclasses import dataclass

import torch
from torch import nn, Tensor


@dataclass
class Batch:
    obs: Tensor
    reward: Tensor
    next_obs: Tensor
    terminated: Tensor


class VecWalk:
    def __init__(self, n: int, length: int = 11):
        self.n, self.length = n, length
        self.x = torch.full((n,), length // 2)

    def encode(self, x: Tensor) -> Tensor:
        return torch.stack([x / self.length, (x / self.length) ** 2, (x % 2).float()], dim=-1)

    def step(self) -> Batch:
        obs = self.encode(self.x)
        nxt = self.x + torch.where(torch.rand(self.n) < 0.5, 1, -1)
        terminated = (nxt <= 0) | (nxt >= self.length)
        reward = (nxt >= self.length).float()
        batch = Batch(obs, reward, self.encode(nxt), terminated.float())
        self.x = torch.where(terminated, torch.full_like(nxt, self.length // 2), nxt)
        return batch


class ValueNet(nn.Module):
    def __init__(self, width: int = 64):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def td_target(net: nn.Module, b: Batch, gamma: float) -> Tensor:
    with torch.no_grad():
        boot = net(b.next_obs).flatten()
    return b.reward + gamma * (1.0 - b.terminated) * boot


def main() -> None:
    torch.manual_seed(12)
    env, net = VecWalk(32), ValueNet()
    opt = torch.optim.Adam(net.parameters(), lr=2e-3)
    sched = torch.optim.lr_scheduler.ExponentialLR(opt, gamma=0.999)
    for it in range(600):
        b = env.step()
        target = td_target(net, b, gamma=0.98)
        value = net(b.obs)
        delta = target - value  # expect: broadcast
        loss = delta.pow(2).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        sched.step()
        if it % 150 == 149:
            with torch.no_grad():
                grid = net(env.encode(torch.arange(1, 11))).flatten()
            print(it + 1, "V:", [round(v, 2) for v in grid.tolist()])


if __name__ == "__main__":
    main()
