"""Two fits with L-BFGS: the hyperparameters of a Gaussian process, then a small network in full batch."""
import torch
import torch.nn as nn

torch.set_default_dtype(torch.float64)
torch.manual_seed(4)

x = torch.sort(torch.rand(40) * 6)[0]
y = torch.sin(2 * x) * torch.exp(-0.2 * x) + 0.1 * torch.randn(40)


class GP(nn.Module):
    def __init__(self):
        super().__init__()
        self.log_length = nn.Parameter(torch.tensor(1.0))
        self.log_scale = nn.Parameter(torch.tensor(0.0))
        self.log_noise = nn.Parameter(torch.tensor(-1.0))

    def nll(self, x, y):
        d2 = (x.unsqueeze(0) - x.unsqueeze(1)) ** 2
        K = torch.exp(2 * self.log_scale) * torch.exp(-0.5 * d2 / torch.exp(2 * self.log_length))
        K = K + torch.exp(2 * self.log_noise) * torch.eye(len(x))
        L = torch.linalg.cholesky(K)
        alpha = torch.cholesky_solve(y.unsqueeze(1), L).squeeze(1)
        return 0.5 * y @ alpha + L.diagonal().log().sum()


gp = GP()
opt = torch.optim.LBFGS(gp.parameters(), lr=0.1, max_iter=2)
for i in range(40):
    def closure():
        opt.zero_grad()
        loss = gp.nll(x, y)
        loss.backward()
        return loss

    loss = opt.step(closure)
    if i % 10 == 9:
        print(f"gp {i + 1} nll {loss.item():.4f} length {gp.log_length.exp().item():.3f} "
              f"noise {gp.log_noise.exp().item():.3f}")

net = nn.Sequential(nn.Linear(1, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 1))
optimizer = torch.optim.LBFGS(net.parameters(), max_iter=6, history_size=20, line_search_fn="strong_wolfe")
X, Y = x.unsqueeze(1), y.unsqueeze(1)
evaluations = 0


def net_closure():
    global evaluations
    evaluations += 1
    optimizer.zero_grad()
    penalty = sum(p.pow(2).sum() for p in net.parameters())
    loss = nn.functional.mse_loss(net(X), Y) + 1e-5 * penalty
    loss.backward()
    return loss


for epoch in range(60):
    loss = optimizer.step(net_closure)
    if epoch % 12 == 11:
        print(f"net {epoch + 1} loss {loss.item():.5f} after {evaluations} evaluations")
