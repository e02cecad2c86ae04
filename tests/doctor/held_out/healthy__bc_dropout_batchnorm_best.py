"""Clone a hand-written Pendulum controller; keep the best weights on held-out episodes."""
import copy
import gymnasium as gym
import numpy as np
import torch
from torch import nn

torch.manual_seed(0)
np.random.seed(0)


def expert(obs):
    c, s, w = obs
    near = 1 / (1 + np.exp(-12 * (c - 0.7)))
    balance = -(8 * s + 2 * w)
    swing = 0.6 * (10 - (w * w / 2 + 10 * c)) * np.tanh(w + 0.3)
    return np.clip([near * balance + (1 - near) * swing], -2, 2)


env = gym.make("Pendulum-v1", max_episode_steps=60)
X, Y, episode = [], [], []
for e in range(25):
    o, _ = env.reset(seed=e)
    while True:
        u = expert(o)
        X.append(o)
        Y.append(u)
        episode.append(e)
        o, _, _, trunc, _ = env.step(np.asarray(u + 0.2 * np.random.randn(1), dtype=np.float32))
        if trunc:
            break
X = torch.tensor(np.stack(X))
Y = torch.tensor(np.stack(Y), dtype=torch.float32) / 2
episode = torch.tensor(episode)
train, held = episode < 20, episode >= 20

student = nn.Sequential(
    nn.BatchNorm1d(3), nn.Linear(3, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.1),
    nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 1),
)
opt = torch.optim.AdamW(student.parameters(), lr=3e-3, weight_decay=1e-3)
sched = torch.optim.lr_scheduler.OneCycleLR(opt, max_lr=6e-3, total_steps=20 * 10)
best = (float("inf"), None)
xt, yt = X[train], Y[train]
for epoch in range(20):
    student.train()
    for ix in torch.randperm(len(xt)).chunk(10):
        opt.zero_grad()
        loss = nn.functional.huber_loss(student(xt[ix]), yt[ix], delta=0.5)
        loss.backward()
        opt.step()
        sched.step()
    student.eval()
    with torch.no_grad():
        val = (student(X[held]) - Y[held]).abs().mean().item()
    if val < best[0]:
        best = (val, copy.deepcopy(student.state_dict()))
    if epoch % 4 == 0:
        print(epoch, "train", round(loss.item(), 4), "held-out", round(val, 4))

student.load_state_dict(best[1])
student.eval()
o, _ = env.reset(seed=99)
total = 0.0
for _ in range(120):
    with torch.no_grad():
        u = 2 * student(torch.from_numpy(o)[None]).clamp(-1, 1)
    o, r, *_ = env.step(u.numpy()[0])
    total += float(r)
print("best", best[0], "return of the clone", total)
