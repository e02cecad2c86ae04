import copy

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, TensorDataset


def expert(obs):
    """Energy shaping for the pendulum, with a PD controller near the top."""
    cos_th, sin_th, thdot = obs
    th = np.arctan2(sin_th, cos_th)
    if cos_th > 0.85:
        u = -10.0 * th - 2.0 * thdot
    else:
        energy = 0.5 * thdot**2 / 3 + 5.0 * (cos_th - 1.0)
        u = -1.0 * thdot * energy
    return np.clip(u, -2.0, 2.0)


def collect_demos(n_episodes, seed):
    env = gym.make("Pendulum-v1")
    obs_list, act_list = [], []
    for ep in range(n_episodes):
        obs, _ = env.reset(seed=seed + ep)
        done = False
        while not done:
            act = expert(obs)
            obs_list.append(obs)
            act_list.append([act])
            obs, _, terminated, truncated, _ = env.step(np.array([act], dtype=np.float32))
            done = terminated or truncated
    env.close()
    return np.array(obs_list, dtype=np.float32), np.array(act_list, dtype=np.float32)


@torch.no_grad()
def validate(model, loader, criterion):
    model.eval()
    total, n = 0.0, 0
    for obs, act in loader:
        total += criterion(model(obs), act).item() * len(obs)
        n += len(obs)
    model.train()
    return total / n


def main():
    torch.manual_seed(0)
    obs, act = collect_demos(12, seed=100)
    split = int(0.8 * len(obs))
    order = np.random.default_rng(0).permutation(len(obs))
    obs_t, act_t = torch.from_numpy(obs[order]), torch.from_numpy(act[order])
    train = DataLoader(TensorDataset(obs_t[:split], act_t[:split]), batch_size=64, shuffle=True)
    valid = DataLoader(TensorDataset(obs_t[split:], act_t[split:]), batch_size=256)

    policy = nn.Sequential(
        nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1), nn.Hardtanh(-2.5, 2.5)
    )
    optimizer = torch.optim.Adam(policy.parameters(), lr=4e-3, weight_decay=1e-6)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=2)
    criterion = nn.SmoothL1Loss()

    best, best_state, bad_epochs = float("inf"), None, 0
    for epoch in range(40):
        for x, y in train:
            optimizer.zero_grad()
            loss = criterion(policy(x), y)
            loss.backward()
            optimizer.step()
        val = validate(policy, valid, criterion)
        scheduler.step(val)
        if val < best:
            best, best_state, bad_epochs = val, copy.deepcopy(policy.state_dict()), 0
        else:
            bad_epochs += 1
            if bad_epochs >= 5:
                print("early stop at epoch", epoch)
                break
        if epoch % 6 == 0:
            print(f"epoch {epoch} last train loss {loss.item():.4f} val {val:.4f} best {best:.4f}")

    policy.load_state_dict(best_state)
    policy.eval()
    print(f"restored best: {validate(policy, valid, criterion):.4f}")


if __name__ == "__main__":
    main()
