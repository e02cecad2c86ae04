import numpy as np
import torch
from torch import nn


class Lander1D:
    """Vectorised: height and speed, burn or not; crash/landing terminates, 100 steps truncate."""

    def __init__(self, n, seed):
        self.n, self.rng = n, np.random.default_rng(seed)
        self.h, self.v, self.t = np.zeros(n), np.zeros(n), np.zeros(n, int)
        self._reset(np.ones(n, bool))

    def _reset(self, m):
        k = m.sum()
        self.h[m] = self.rng.uniform(3, 6, k)
        self.v[m] = self.rng.uniform(-1, 0, k)
        self.t[m] = 0

    def obs(self):
        return np.stack([self.h / 5, self.v / 2], 1).astype(np.float32)

    def step(self, burn):
        self.v += 0.1 * (-1.0 + 2.2 * burn)
        self.h += 0.1 * self.v
        self.t += 1
        ground = self.h <= 0
        rew = np.where(ground, np.where(self.v > -0.8, 5.0, -2.0 + self.v), -0.02 - 0.02 * burn)
        timeout = (self.t >= 100) & ~ground
        last = self.obs()
        self._reset(ground | timeout)
        return last, rew.astype(np.float32), ground.astype(np.float32), timeout.astype(np.float32)


class AC(nn.Module):
    def __init__(self):
        super().__init__()
        self.shared = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        self.logit = nn.Linear(64, 1)
        self.value = nn.Linear(64, 1)

    def forward(self, x):
        z = self.shared(x)
        return torch.distributions.Bernoulli(logits=self.logit(z)[:, 0]), self.value(z)[:, 0]


def main():
    torch.manual_seed(10)
    N, T, gamma = 16, 12, 0.98
    env, model = Lander1D(N, 10), AC()
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1.5e-3, alpha=0.97, eps=1e-5)
    landings = []
    for update in range(150):
        lps, vs, ents, rs, grounds, timeouts, v_after = [], [], [], [], [], [], []
        for _ in range(T):
            dist, v = model(torch.from_numpy(env.obs()))
            a = dist.sample()
            last, r, g, to = env.step(a.numpy())
            with torch.no_grad():
                v_after.append(model(torch.from_numpy(last))[1])
            lps.append(dist.log_prob(a)); vs.append(v); ents.append(dist.entropy())
            rs.append(torch.from_numpy(r)); grounds.append(torch.from_numpy(g)); timeouts.append(torch.from_numpy(to))
            landings += r[g > 0].tolist()
        G, targets = v_after[-1], []
        for t in range(T - 1, -1, -1):
            tail = torch.where(timeouts[t] > 0, v_after[t], G)
            G = rs[t] + gamma * (1 - grounds[t]) * tail
            targets.insert(0, G)
        targets, values = torch.cat(targets), torch.cat(vs)
        adv = targets - values.detach()
        loss = -(torch.cat(lps) * adv).mean() + 0.5 * (targets - values).square().mean() - 0.01 * torch.cat(ents).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        if (update + 1) % 30 == 0:
            print(f"{update + 1} landing score {np.mean(landings[-100:]):.2f} loss {loss.item():.3f} entropy {torch.cat(ents).mean().item():.3f}")


main()
