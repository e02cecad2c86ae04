"""Cosine classifier: class prototypes live on the unit sphere and are put back on it after each step.
The embedding uses spectral normalisation on its hidden layer."""
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.utils.parametrizations import spectral_norm


class CosineNet(nn.Module):
    def __init__(self, n_in, n_emb, n_classes, scale=12.0):
        super().__init__()
        self.body = nn.Sequential(
            spectral_norm(nn.Linear(n_in, 64)),
            nn.ReLU(),
            nn.Linear(64, n_emb),
        )
        self.prototypes = nn.Parameter(F.normalize(torch.randn(n_classes, n_emb), dim=1))
        self.scale = scale

    def forward(self, x):
        e = F.normalize(self.body(x), dim=1)
        return self.scale * e @ self.prototypes.t()

    @torch.no_grad()
    def renormalise(self):
        self.prototypes.div_(self.prototypes.norm(dim=1, keepdim=True))
        last = self.body[-1]
        # max-norm on the rows of the last layer
        norm = last.weight.norm(dim=1, keepdim=True)
        last.weight.data = last.weight.data * (norm.clamp(max=1.5) / norm)


def data(n, means, g):
    y = torch.randint(0, len(means), (n,), generator=g)
    return means[y] + 0.8 * torch.randn(n, means.shape[1], generator=g), y


def run(epochs=12, batch=64):
    torch.manual_seed(9)
    g = torch.Generator().manual_seed(9)
    means = torch.randn(10, 16, generator=g)
    x_train, y_train = data(2000, means, g)
    x_test, y_test = data(500, means, g)
    net = CosineNet(16, 12, 10)
    opt = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    sched = torch.optim.lr_scheduler.StepLR(opt, step_size=5, gamma=0.5)
    for epoch in range(epochs):
        net.train()
        total = 0.0
        for idx in torch.randperm(len(x_train), generator=g).split(batch):
            opt.zero_grad()
            loss = F.cross_entropy(net(x_train[idx]), y_train[idx], label_smoothing=0.05)
            loss.backward()
            opt.step()
            net.renormalise()
            total += loss.item() * len(idx)
        sched.step()
        net.eval()
        with torch.inference_mode():
            acc = (net(x_test).argmax(1) == y_test).float().mean().item()
        if epoch % 3 == 2:
            print(f"epoch {epoch + 1} train {total / len(x_train):.3f} test accuracy {acc:.3f}")


run()
