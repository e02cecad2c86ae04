"""PPO with continuous actions on a small reacher; minibatches over shuffled [T*N] samples."""
from typing import Iterator

import torch
from torch import nn, Tensor
from torch.distributions import Independent, Normal

T, N, CLIP, GAMMA, LAM = 25, 5, 0.2, 0.95, 0.9


class Reacher:
    def __init__(self, n: int):
        self.pos, self.goal = torch.zeros(n, 2), torch.randn(n, 2).clamp(-1, 1)

    def observe(self) -> Tensor:
        return torch.cat((self.pos, self.goal - self.pos), 1)

    def step(self, a: Tensor):
        self.pos = (self.pos + 0.25 * a.clamp(-1, 1)).clamp(-2, 2)
        return self.observe(), -(self.goal - self.pos).norm(dim=1)


class Agent(nn.Module):
    def __init__(self):
        super().__init__()
        self.mu = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 2))
        self.v = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 1))
        self.log_std = nn.Parameter(torch.full((2,), -0.5))

    def pi(self, o: Tensor) -> Independent:
        return Independent(Normal(self.mu(o), self.log_std.clamp(-2, 0.5).exp()), 1)


def gae(r: Tensor, v: Tensor, last_v: Tensor) -> Tensor:
    out, run = [], torch.zeros_like(last_v)
    v_ext = torch.cat((v, last_v[None]))
    for t in reversed(range(len(r))):
        run = r[t] + GAMMA * v_ext[t + 1] - v_ext[t] + GAMMA * LAM * run
        out.append(run)
    return torch.stack(out[::-1])


def minibatches(data: dict[str, Tensor], size: int) -> Iterator[dict[str, Tensor]]:
    n = next(iter(data.values())).shape[0]
    for idx in torch.randperm(n).split(size):
        yield {k: x[idx] for k, x in data.items()}


def normalize(x: Tensor) -> Tensor:
    return (x - x.mean()) / (x.std() + 1e-8)  # expect: non-finite


def surrogate(agent: Agent, mb: dict[str, Tensor]) -> Tensor:
    ratio = (agent.pi(mb["obs"]).log_prob(mb["act"]) - mb["logp"]).exp()
    adv = normalize(mb["adv"])
    return -torch.min(ratio * adv, ratio.clamp(1 - CLIP, 1 + CLIP) * adv).mean()


torch.manual_seed(19)
env, agent = Reacher(N), Agent()
opt = torch.optim.Adam(agent.parameters(), lr=1e-3)
for it in range(20):
    env = Reacher(N)
    o, rows = env.observe(), []
    with torch.no_grad():
        for _ in range(T):
            d = agent.pi(o)
            a = d.sample()
            o2, r = env.step(a)
            rows.append((o, a, d.log_prob(a), r, agent.v(o).squeeze(-1)))
            o = o2
        O, A, LP, R, V = (torch.stack(c) for c in zip(*rows))
        ADV = gae(R, V, agent.v(o).squeeze(-1))
    data = {k: x.flatten(0, 1) for k, x in dict(obs=O, act=A, logp=LP, adv=ADV, ret=ADV + V).items()}
    for epoch in range(3):
        for mb in minibatches(data, 31):
            loss = surrogate(agent, mb) + 0.5 * (agent.v(mb["obs"]).squeeze(-1) - mb["ret"]).square().mean()
            opt.zero_grad()
            loss.backward()
            opt.step()
    if it % 5 == 0:
        print(it, "reward", R.mean().item(), "loss", loss.item())
