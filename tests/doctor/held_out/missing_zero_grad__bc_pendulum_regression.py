# imitation of an energy-shaping controller for the pendulum (MSE on the torque)
import math
import gymnasium as gym
import torch
from torch import nn

torch.manual_seed(0)
env = gym.make("Pendulum-v1")


def teacher(obs):
    c, s, w = obs
    th = math.atan2(s, c)
    if c > 0.8:
        u = -8.0 * th - 2.0 * w
    else:
        u = 2.0 * (1 if w >= 0 else -1) * (1 if 0.5 * w * w + 15 * (c - 1) < 0 else -1)
    return max(-2.0, min(2.0, u))


demo_obs, demo_act = [], []
for k in range(6):
    obs, _ = env.reset(seed=k)
    end = False
    while not end:
        u = teacher(obs)
        demo_obs.append(obs.tolist())
        demo_act.append([u])
        obs, _, term, trunc, _ = env.step([u])
        end = term or trunc
demo_obs, demo_act = torch.tensor(demo_obs), torch.tensor(demo_act)

student = nn.Sequential(
    nn.Linear(3, 64), nn.SiLU(),
    nn.Linear(64, 64), nn.SiLU(),
    nn.Linear(64, 1),
)
optimizer = torch.optim.SGD(student.parameters(), lr=0.05)

def lr_at(i):
    return 0.05 * (1 - 0.5 * i / 800)

for i in range(800):
    rows = torch.randperm(len(demo_obs))[:64]
    loss = nn.functional.mse_loss(student(demo_obs[rows]), demo_act[rows])
    for group in optimizer.param_groups:
        group["lr"] = lr_at(i)
    loss.backward()
    optimizer.step()  # expect: missing-zero-grad
    if (i + 1) % 100 == 0:
        print(f"iter {i + 1}: mse {loss.item():.4f}")

student.eval()
obs, _ = env.reset(seed=123)
score = 0.0
for _ in range(200):
    with torch.no_grad():
        u = student(torch.from_numpy(obs)).clamp(-2, 2).numpy()
    obs, r, *_ = env.step(u)
    score += r
print("student score", round(score, 1))
