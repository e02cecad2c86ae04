# evaluate a fixed swing controller on Pendulum by TD(0), and improve it with a small actor
import gymnasium as gym
import torch
import torch.nn as nn
from torch.distributions import Normal

torch.manual_seed(17)
GAMMA = 0.95
env = gym.make("Pendulum-v1", max_episode_steps=40)

mean_net = nn.Sequential(nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, 1), nn.Tanh())
value_net = nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 1))
mean_opt = torch.optim.Adam(mean_net.parameters(), lr=5e-4)
value_opt = torch.optim.Adam(value_net.parameters(), lr=2e-3)
STD = 0.4


def collect(n_episodes):
    trans = []
    total = 0.0
    for _ in range(n_episodes):
        obs, _ = env.reset()
        while True:
            o = torch.as_tensor(obs)
            with torch.no_grad():
                act = Normal(mean_net(o), STD).sample()
            obs2, rew, terminated, truncated, _ = env.step(2.0 * act.numpy())
            mask = 0.0 if terminated or truncated else 1.0  # expect: truncation
            trans.append((o, act, rew / 8, torch.as_tensor(obs2), mask))
            total += rew
            obs = obs2
            if terminated or truncated:
                break
    return trans, total / n_episodes


env.reset(seed=17)
for it in range(14):
    trans, avg = collect(3)
    o = torch.stack([x[0] for x in trans])
    a = torch.stack([x[1] for x in trans])
    r = torch.tensor([float(x[2]) for x in trans])
    o2 = torch.stack([x[3] for x in trans])
    m = torch.tensor([x[4] for x in trans])

    for _ in range(8):
        with torch.no_grad():
            target = r + GAMMA * m * value_net(o2).squeeze(1)
        v = value_net(o).squeeze(1)
        value_loss = (v - target).pow(2).mean()
        value_opt.zero_grad()
        value_loss.backward()
        value_opt.step()

    with torch.no_grad():
        adv = r + GAMMA * m * value_net(o2).squeeze(1) - value_net(o).squeeze(1)
        adv = (adv - adv.mean()) / (adv.std() + 1e-8)
    log_prob = Normal(mean_net(o), STD).log_prob(a).squeeze(1)
    actor_loss = -(log_prob * adv).mean()
    mean_opt.zero_grad()
    actor_loss.backward()
    mean_opt.step()
    if it % 4 == 0:
        print("iteration", it, "avg return", round(float(avg), 1), "value loss", round(value_loss.item(), 4))
