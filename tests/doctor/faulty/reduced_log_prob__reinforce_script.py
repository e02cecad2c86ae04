import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn

torch.manual_seed(29)
np.random.seed(29)
env = gym.make("CartPole-v1")
policy = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 2))
opt = torch.optim.Adam(policy.parameters(), lr=3e-3)


def discount(rewards, gamma=0.99):
    g = np.zeros(len(rewards), dtype=np.float32)
    run = 0.0
    for i in reversed(range(len(rewards))):
        run = rewards[i] + gamma * run
        g[i] = run
    return g


def taken_log_probs(obs, actions):
    log_p = torch.log_softmax(policy(obs), dim=1)
    picked = torch.nn.functional.one_hot(actions, 2) * log_p
    return picked.sum()  # expect: reduced-log-prob


def loss_fn(obs, actions, weights):
    return -(taken_log_probs(obs, actions) * weights).mean()


recent = []
for batch in range(40):
    obs_l, act_l, ret_l = [], [], []
    for _ in range(3):
        obs, _ = env.reset(seed=1000 * batch + len(ret_l))
        rewards, done = [], False
        while not done:
            with torch.no_grad():
                p = torch.softmax(policy(torch.from_numpy(obs)), -1).numpy().astype(np.float64)
            a = np.random.choice(2, p=p / p.sum())
            obs_l.append(obs)
            act_l.append(a)
            obs, r, terminated, truncated, _ = env.step(a)
            rewards.append(r)
            done = terminated or truncated
        ret_l.extend(discount(rewards))
        recent.append(len(rewards))
    w = torch.tensor(np.array(ret_l))
    w = (w - w.mean()) / (w.std() + 1e-8)
    loss = loss_fn(torch.from_numpy(np.array(obs_l)), torch.tensor(np.array(act_l)), w)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if batch % 10 == 9:
        print(batch + 1, "mean length", np.mean(recent[-30:]), "loss", loss.item())
