# compressibility factor of a real gas from (p [Pa], T [K], v [cm^3/mol]); van der Waals gives the "measurements"
import torch
import torch.nn.functional as F
from dataclasses import dataclass

R, A_VDW, B_VDW = 8.314, 0.3640, 4.267e-5


@dataclass
class Gas:
    n: int
    seed: int

    def measure(self):
        g = torch.Generator().manual_seed(self.seed)
        T = 280 + 120 * torch.rand(self.n, generator=g)
        v = 4e-4 + 2e-3 * torch.rand(self.n, generator=g)
        p = R * T / (v - B_VDW) - A_VDW / v ** 2
        return torch.stack([p, T, 1e6 * v], 1), p * v / (R * T)


@dataclass
class Net:
    W1: torch.Tensor
    b1: torch.Tensor
    W2: torch.Tensor
    b2: torch.Tensor

    @classmethod
    def fresh(cls, m):
        mk = lambda *s: (torch.randn(*s) / s[-1] ** 0.5).requires_grad_(True)
        z = lambda k: torch.zeros(k, requires_grad=True)
        return cls(mk(m, 3), z(m), mk(1, m), z(1))

    def __call__(self, x):
        a = F.linear(x, self.W1, self.b1)
        h = torch.tanh(a)  # expect: saturation
        return F.linear(h, self.W2, self.b2)[:, 0]

    def tensors(self):
        return [self.W1, self.b1, self.W2, self.b2]


torch.manual_seed(1873)
x, Z = Gas(2000, 1).measure()
xt, Zt = Gas(500, 2).measure()
net = Net.fresh(32)
opt = torch.optim.Adam(net.tensors(), lr=2e-3)
for step in range(800):
    i = torch.randint(len(x), (128,))
    loss = F.mse_loss(net(x[i]), Z[i])
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 160 == 0:
        with torch.no_grad():
            rms = (net(xt) - Zt).square().mean().sqrt()
        print(f"{step:4d}  rms(Z) = {rms.item():.4f}   spread of Z = {Zt.std().item():.4f}")
