# policy gradient bandit with images: 8x8 pixels, choose the brighter half
import torch
import torch.nn as nn

torch.manual_seed(19)

N_PIX = 64


def images(n):
    img = torch.rand(n, 8, 8) * 120
    side = torch.randint(0, 2, (n,))
    img[side == 0, :, :4] += 100
    img[side == 1, :, 4:] += 100
    return img.reshape(n, N_PIX), side


def init(m):
    if isinstance(m, nn.Linear):
        nn.init.normal_(m.weight, mean=0.0, std=1.0)
        nn.init.zeros_(m.bias)


features = nn.Sequential(
    nn.Linear(N_PIX, 32),
    nn.Tanh(),  # expect: saturation
)
features.apply(init)
head = nn.Linear(32, 2)
optimizer = torch.optim.Adam([
    {"params": features.parameters(), "lr": 1e-3},
    {"params": head.parameters(), "lr": 1e-2},
])

running = 0.5
for step in range(300):
    x, side = images(64)
    logits = head(features(x))
    logp_all = torch.log_softmax(logits, dim=-1)
    with torch.no_grad():
        act = torch.multinomial(logp_all.exp(), 1).squeeze(1)
    reward = (act == side).float()
    logp = logp_all[torch.arange(len(act)), act]
    loss = -((reward - running) * logp).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    running = 0.95 * running + 0.05 * reward.mean().item()
    if step % 50 == 0:
        print("step", step, "hit rate %.3f" % reward.mean().item())
