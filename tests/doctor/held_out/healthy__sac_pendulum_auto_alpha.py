"""SAC on Pendulum with a learned temperature (single file)."""
import gymnasium as gym
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Normal

LOG2 = torch.log(torch.tensor(2.0))


def fc(*dims):
    seq = []
    for a, b in zip(dims[:-1], dims[1:]):
        seq += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*seq[:-1])


class SquashedPolicy(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = fc(3, 64, 64, 2)

    def forward(self, s, deterministic=False):
        mu, raw = self.net(s).chunk(2, -1)
        log_std = -4 + 3 * (torch.tanh(raw) + 1)      # between -4 and 2
        normal = Normal(mu, log_std.exp())
        u = mu if deterministic else normal.rsample()
        logp = normal.log_prob(u) - 2 * (LOG2 - u - F.softplus(-2 * u))
        return torch.tanh(u), logp.sum(-1)


class Ring:
    def __init__(self, cap):
        self.mem = torch.zeros(cap, 3 + 1 + 1 + 3 + 1)
        self.n = 0

    def add(self, *parts):
        row = torch.cat([torch.as_tensor(p, dtype=torch.float32).reshape(-1) for p in parts])
        self.mem[self.n % len(self.mem)] = row
        self.n += 1

    def sample(self, k):
        rows = self.mem[torch.randint(min(self.n, len(self.mem)), (k,))]
        s, a, r, s2, d = rows.split([3, 1, 1, 3, 1], dim=1)
        return s, a, r[:, 0], s2, d[:, 0]


def main():
    torch.manual_seed(19)
    env = gym.make("Pendulum-v1")
    pi, q1, q2, q1t, q2t = SquashedPolicy(), *(fc(4, 64, 64, 1) for _ in range(4))
    q1t.load_state_dict(q1.state_dict())
    q2t.load_state_dict(q2.state_dict())
    log_alpha = torch.tensor(-1.5, requires_grad=True)
    pi_opt = torch.optim.Adam(pi.parameters(), 1e-3)
    q_opt = torch.optim.Adam([*q1.parameters(), *q2.parameters()], 1e-3)
    alpha_opt = torch.optim.Adam([log_alpha], 3e-3)
    ring = Ring(4000)
    s, _ = env.reset(seed=19)
    ret = 0.0
    for t in range(1, 751):
        with torch.no_grad():
            a = pi(torch.as_tensor(s))[0]
        s2, r, term, trunc, _ = env.step(2 * a.numpy())
        ring.add(s, a, r / 8, s2, float(term))
        s, ret = s2, ret + r
        if term or trunc:
            print(f"{t}: return {ret:.0f}, alpha {log_alpha.exp().item():.3f}")
            s, _ = env.reset()
            ret = 0.0
        if ring.n < 150:
            continue
        S, A, R, S2, D = ring.sample(64)
        alpha = log_alpha.exp().detach()
        with torch.no_grad():
            A2, lp2 = pi(S2)
            sa2 = torch.cat([S2, A2], 1)
            y = R + 0.98 * (1 - D) * (torch.minimum(q1t(sa2), q2t(sa2)).squeeze(1) - alpha * lp2)
        sa = torch.cat([S, A], 1)
        q_loss = F.mse_loss(q1(sa).squeeze(1), y) + F.mse_loss(q2(sa).squeeze(1), y)
        q_opt.zero_grad()
        q_loss.backward()
        q_opt.step()

        new, lp = pi(S)
        snew = torch.cat([S, new], 1)
        pi_loss = (alpha * lp - torch.minimum(q1(snew), q2(snew)).squeeze(1)).mean()
        pi_opt.zero_grad()
        pi_loss.backward()
        pi_opt.step()

        alpha_loss = -(log_alpha * (lp.detach() - 1.0)).mean()
        alpha_opt.zero_grad()
        alpha_loss.backward()
        alpha_opt.step()
        with torch.no_grad():
            for p, tp in zip([*q1.parameters(), *q2.parameters()], [*q1t.parameters(), *q2t.parameters()]):
                tp.add_(0.01 * (p - tp))
    print("q", q_loss.item(), "pi", pi_loss.item())


main()
