import math
import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn

torch.manual_seed(2); np.random.seed(2)
env = gym.make("MountainCarContinuous-v0", max_episode_steps=120)

policy = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 2))      # mean, raw std
value = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 1))
opt_p = torch.optim.Adam(policy.parameters(), lr=4e-3)
opt_v = torch.optim.Adam(value.parameters(), lr=1e-2)


def gauss_logp(x, mu, std):
    return -((x - mu) ** 2) / (2 * std ** 2) - torch.log(std) - 0.5 * math.log(2 * math.pi)


def params(o):
    out = policy(o)
    return out[..., 0], 0.2 + nn.functional.softplus(out[..., 1])


def normalise(o):
    return (np.asarray(o, dtype=np.float32) - np.array([-0.3, 0.0], np.float32)) * np.array([1.5, 20.0], np.float32)


def episode(seed):
    o = normalise(env.reset(seed=seed)[0])
    traj = []
    while True:
        with torch.no_grad():
            mu, std = params(torch.from_numpy(o))
            u = (mu + std * torch.randn(())).item()
        force = min(max(u, -1.0), 1.0)              # the environment clips, the density keeps u
        raw, r, terminated, truncated, _ = env.step(np.array([force], np.float32))
        o2 = normalise(raw)
        energy = 10 * (o2[1] ** 2 - o[1] ** 2)
        traj.append((o, u, 0.05 * r + energy))
        o = o2
        if terminated or truncated:
            return traj, o, terminated


gamma = 0.97
speeds = []
for it in range(24):
    O, U, G = [], [], []
    for k in range(2):
        traj, o_last, goal = episode(100 * it + k)
        with torch.no_grad():
            g = 0.0 if goal else value(torch.from_numpy(o_last)).item()
        gs = []
        for o, u, r in reversed(traj):
            g = r + gamma * g
            gs.append(g)
            O.append(o); U.append(u)
        G += gs
        speeds.append(max(abs(o[1]) for o, _, _ in traj))
    O, U, G = torch.from_numpy(np.stack(O)), torch.tensor(U), torch.tensor(np.array(G), dtype=torch.float32)

    for _ in range(5):
        v_loss = (value(O).view(-1) - G).square().mean()
        opt_v.zero_grad(); v_loss.backward(); opt_v.step()

    adv = G - value(O).view(-1).data
    adv = (adv - adv.mean()) / (adv.std() + 1e-6)
    mu, std = params(O)
    logp = gauss_logp(U, mu, std)
    p_loss = (-logp * adv).mean() - 0.003 * torch.log(std).mean()
    opt_p.zero_grad(); p_loss.backward(); opt_p.step()
    if it % 6 == 5:
        print(f"{it + 1:3d} top speed {np.mean(speeds[-12:]):.3f} v_loss {v_loss.item():.4f} std {std.mean().item():.3f}")
