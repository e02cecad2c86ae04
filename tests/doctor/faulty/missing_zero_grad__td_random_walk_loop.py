import random
import torch

# value estimation for the classic random walk, states 1..n, terminals 0 and n+1
random.seed(0)
torch.manual_seed(0)

N = 9
GAMMA = 1.0
true_v = torch.tensor([i / (N + 1) for i in range(1, N + 1)])


def features(i):
    x = torch.zeros(N)
    x[i - 1] = 1.0
    return x


net = torch.nn.Sequential(
    torch.nn.Linear(N, 24),
    torch.nn.Tanh(),
    torch.nn.Linear(24, 1),
)
optim = torch.optim.SGD(net.parameters(), lr=0.02)


def walk():
    path, i = [], (N + 1) // 2
    while 0 < i < N + 1:
        j = i + random.choice((-1, 1))
        path.append((i, 1.0 if j == N + 1 else 0.0, j))
        i = j
    return path


def rms():
    with torch.no_grad():
        v = net(torch.eye(N)).squeeze(1)
        return (v - true_v).pow(2).mean().sqrt().item()


print("start rms", round(rms(), 4))
for episode in range(120):
    path = walk()
    xs = torch.stack([features(i) for i, _, _ in path])
    rs = torch.tensor([r for _, r, _ in path])
    with torch.no_grad():
        nxt = torch.stack([
            net(features(j)).squeeze() if 0 < j < N + 1 else torch.tensor(0.0)
            for _, _, j in path
        ])
    target = rs + GAMMA * nxt
    v = net(xs).squeeze(1)
    loss = (v - target).pow(2).mean()
    loss.backward()
    optim.step()  # expect: missing-zero-grad
    if episode % 20 == 0:
        print("episode", episode, "loss", round(loss.item(), 4), "rms", round(rms(), 4))
print("final rms", round(rms(), 4))
