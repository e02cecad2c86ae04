"""k rollouts of the same start, each is judged against the mean of the others (RLOO); optimizer maximises."""
import numpy as np
import torch

rng = np.random.default_rng(4)
torch.manual_seed(4)
K, CITIES = 6, 6


class Knapsackish:
    """pick or skip six items in order, without overloading the bag"""

    def __init__(self, seed):
        r = np.random.default_rng(seed)
        self.w = r.uniform(0.1, 0.5, CITIES)
        self.v = r.uniform(0.1, 1.0, CITIES)
        self.i, self.load = 0, 0.0

    @property
    def features(self):
        i = self.i
        return [self.w[i], self.v[i], 1 - self.load, i / CITIES, self.w[i:].sum() / 3, self.v[i:].sum() / 6]

    def decide(self, take):
        gain = 0.0
        if take:
            if self.load + self.w[self.i] <= 1.0:
                self.load += self.w[self.i]
                gain = self.v[self.i]
            else:
                gain = -0.3
        self.i += 1
        return gain, self.i == CITIES


policy = torch.nn.Sequential(torch.nn.Linear(6, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
opt = torch.optim.Adam(policy.parameters(), lr=1e-2, maximize=True)
curve = []
for it in range(90):
    scores, totals = [], []
    for p in range(2):
        seed = int(rng.integers(1 << 30))
        lps, gains = [], []
        for _ in range(K):
            game, lp, total, over = Knapsackish(seed), 0.0, 0.0, False
            while not over:
                x = torch.tensor(game.features, dtype=torch.float32)
                z = policy(x)[0]
                take = bool(torch.rand(()) < torch.sigmoid(z.detach()))
                lp = lp + torch.nn.functional.logsigmoid(z if take else -z)
                g, over = game.decide(take)
                total += g
            lps.append(lp)
            gains.append(total)
        G = torch.tensor(gains, dtype=torch.float32)
        others = (G.sum() - G) / (K - 1)
        scores.append((torch.stack(lps) * (G - others)).mean())
        totals.append(G.mean().item())
    objective = torch.stack(scores).mean()
    opt.zero_grad()
    objective.backward()
    opt.step()
    curve.append(np.mean(totals))
print("first 20:", np.mean(curve[:20]), "last 20:", np.mean(curve[-20:]))
