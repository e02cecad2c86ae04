import numpy as np
import torch
import torch.nn as nn

torch.manual_seed(13)
rng = np.random.default_rng(13)


class Cloner:
    class Policy(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 16), nn.ReLU())
            self.head = nn.Linear(16, 4)

        def forward(self, x):
            return self.head(self.encoder(x))

    def __init__(self):
        self.policy = Cloner.Policy()
        self.loss_fn = nn.CrossEntropyLoss()

    def _hold_encoder(self):
        for p in self.policy.encoder.parameters():
            p.requires_grad = False  # expect: frozen-parameter

    def warm_up_head(self, x, y, steps=60):
        """Let the randomly initialised head settle before the whole network is trained."""
        self._hold_encoder()
        self._run(x, y, steps, lr=1e-2)

    def fit(self, x, y, steps=500):
        self._run(x, y, steps, lr=1e-3)

    def _run(self, x, y, steps, lr):
        opt = torch.optim.Adam(self.policy.parameters(), lr=lr)
        for step in range(steps):
            i = torch.randint(0, len(x), (64,))
            loss = self.loss_fn(self.policy(x[i]), y[i])
            opt.zero_grad()
            loss.backward()
            opt.step()
            if step % 100 == 0:
                print(f"  step {step}: {loss.item():.4f}")

    @torch.no_grad()
    def accuracy(self, x, y):
        return (self.policy(x).argmax(1) == y).float().mean().item()


def expert(x):
    a = (x[:, 0] * x[:, 1] > 0).astype(int)
    b = (x[:, 2] + np.sin(2 * x[:, 3]) > 0).astype(int)
    return 2 * a + b


X = rng.normal(size=(4000, 8)).astype(np.float32)
Y = expert(X)
X, Y = torch.from_numpy(X), torch.from_numpy(Y).long()
c = Cloner()
c.warm_up_head(X[:3000], Y[:3000])
print("after warm-up", c.accuracy(X[3000:], Y[3000:]))
c.fit(X[:3000], Y[:3000])
print("after fit", c.accuracy(X[3000:], Y[3000:]))
