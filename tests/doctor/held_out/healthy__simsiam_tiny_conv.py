import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(0)


def shapes(n):
    """10x10 images: square, cross or diagonal at a random place"""
    img, y = torch.zeros(n, 1, 10, 10), torch.randint(3, (n,))
    for i in range(n):
        r, c = torch.randint(0, 6, (2,)).tolist()
        k = int(y[i])
        if k == 0:
            img[i, 0, r:r + 4, c:c + 4] = 1
        elif k == 1:
            img[i, 0, r + 1:r + 3, c:c + 4] = 1
            img[i, 0, r:r + 4, c + 1:c + 3] = 1
        else:
            img[i, 0, range(r, r + 4), range(c, c + 4)] = 1
    return img, y


def augment(x):
    dx, dy = torch.randint(-1, 2, (2,)).tolist()
    return torch.roll(x, (dx, dy), (2, 3)) * (0.8 + 0.4 * torch.rand(len(x), 1, 1, 1)) + 0.1 * torch.randn_like(x)


conv = nn.Sequential(nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.MaxPool2d(2),
                     nn.Conv2d(12, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
proj = nn.Sequential(nn.Linear(24, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 24), nn.BatchNorm1d(24, affine=False))
pred = nn.Sequential(nn.Linear(24, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 24))
opt = torch.optim.SGD([*conv.parameters(), *proj.parameters(), *pred.parameters()], lr=0.05, momentum=0.9, weight_decay=1e-4)
X, Y = shapes(384)


def agree(p, z):
    return -F.cosine_similarity(p, z.detach(), dim=1).mean()


for epoch in range(14):
    for ix in torch.randperm(384).split(64):
        z1, z2 = proj(conv(augment(X[ix]))), proj(conv(augment(X[ix])))
        loss = 0.5 * (agree(pred(z1), z2) + agree(pred(z2), z1))
        opt.zero_grad()
        loss.backward()
        opt.step()
    if epoch % 4 == 0:
        print("ssl", epoch, loss.item(), "spread", F.normalize(z1.detach(), dim=1).std(0).mean().item())

# linear probe on the fixed features
conv.eval()
with torch.no_grad():
    feats = conv(X)
    feats = (feats - feats.mean(0)) / (feats.std(0) + 1e-5)
probe = nn.Linear(24, 3)
po = torch.optim.Adam(probe.parameters(), lr=2e-2)
for _ in range(120):
    ce = F.cross_entropy(probe(feats[:300]), Y[:300])
    po.zero_grad()
    ce.backward()
    po.step()
print("probe accuracy", (probe(feats[300:]).argmax(1) == Y[300:]).float().mean().item())
