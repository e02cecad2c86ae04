"""Stage 1: pretrain an autoencoder. Stage 2: clone the expert end to end with the encoder."""
import torch
import torch.nn as nn
import torch.nn.functional as F


def expert(s):
    return torch.stack([torch.sin(2 * s[:, 0]) + s[:, 1] * s[:, 2], torch.tanh(s[:, 3] - s[:, 0])], dim=1)


def minibatches(*tensors, size=64):
    for idx in torch.randperm(len(tensors[0])).split(size):
        yield tuple(t[idx] for t in tensors)


class Encoder(nn.Module):
    def __init__(self, d=4, z=6):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(d, 32), nn.Linear(32, z)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


def pretrain(encoder, states, epochs=5):
    decoder = nn.Linear(6, 4)
    opt = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=2e-3)
    for _ in range(epochs):
        for (s,) in minibatches(states):
            loss = F.mse_loss(decoder(encoder(s)), s)
            opt.zero_grad()
            loss.backward()
            opt.step()
    with torch.no_grad():
        print("reconstruction", F.mse_loss(decoder(encoder(states)), states).item())
    # keep the encoder still while its codes are inspected
    for p in encoder.parameters():
        p.requires_grad_(False)  # expect: frozen-parameter
    codes = encoder(states)
    print("code std", codes.std(0).mean().item())


def clone(encoder, states, actions, epochs=15):
    head = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 2))
    opt = torch.optim.AdamW([
        {"params": encoder.parameters(), "lr": 5e-4},
        {"params": head.parameters(), "lr": 2e-3},
    ])
    for epoch in range(epochs):
        total = 0.0
        for s, a in minibatches(states, actions):
            loss = F.smooth_l1_loss(head(encoder(s)), a)
            opt.zero_grad()
            loss.backward()
            opt.step()
            total += loss.item() * len(s)
        if (epoch + 1) % 5 == 0:
            print(f"clone epoch {epoch + 1} loss {total / len(states):.4f}")


if __name__ == "__main__":
    torch.manual_seed(13)
    states = torch.randn(1200, 4)
    actions = expert(states)
    enc = Encoder()
    pretrain(enc, states)
    clone(enc, states, actions)
