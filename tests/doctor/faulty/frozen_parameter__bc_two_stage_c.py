from dataclasses import dataclass
import torch
from torch import nn, Tensor


@dataclass
class Config:
    seed: int = 1
    n: int = 2048
    batch: int = 64
    stage1_epochs: int = 3
    stage2_epochs: int = 12


class Encoder(nn.Module):
    def __init__(self, d_in: int, d: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(d_in, d)
        self.fc2 = nn.Linear(d, d)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.fc2(torch.relu(self.fc1(x))))


class CloneNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder(6, 48)
        self.head = nn.Linear(48, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x))


def demonstrations(cfg: Config) -> tuple[Tensor, Tensor]:
    """States and the expert's discrete choices."""
    obs = torch.randn(cfg.n, 6)
    scores = torch.stack([obs[:, 0] * obs[:, 1], obs[:, 2] - obs[:, 3].abs(), torch.sin(2 * obs[:, 4]), obs[:, 5] * obs[:, 0]], 1)
    return obs, scores.argmax(1)


def run_epochs(net: nn.Module, opt: torch.optim.Optimizer, x: Tensor, y: Tensor, epochs: int, bs: int) -> None:
    crit = nn.CrossEntropyLoss()
    for e in range(epochs):
        total = 0.0
        for idx in torch.randperm(len(x)).split(bs):
            opt.zero_grad()
            loss = crit(net(x[idx]), y[idx])
            loss.backward()
            opt.step()
            total += loss.item() * len(idx)
        print(f"  epoch {e}: nll {total / len(x):.3f}")


def main() -> None:
    cfg = Config()
    torch.manual_seed(cfg.seed)
    x, y = demonstrations(cfg)
    net = CloneNet()
    # stage 1: the new head gets used to the features
    for p in net.encoder.parameters():
        p.requires_grad_(False)  # expect: frozen-parameter
    print("stage 1 (head)")
    run_epochs(net, torch.optim.AdamW(net.head.parameters(), lr=3e-3), x, y, cfg.stage1_epochs, cfg.batch)
    # stage 2: fine-tune the whole network
    print("stage 2 (everything)")
    run_epochs(net, torch.optim.AdamW(net.parameters(), lr=1e-3), x, y, cfg.stage2_epochs, cfg.batch)
    with torch.no_grad():
        acc = (net(x).argmax(1) == y).float().mean().item()
    print(f"agreement with expert: {acc:.2%}")


if __name__ == "__main__":
    main()
