import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(149)


class Nets:
    class Actor(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 2))

        def forward(self, s):
            return F.log_softmax(self.fc(s), dim=-1)

    class Critic(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 1))

        def forward(self, s):
            return self.fc(s).squeeze(-1)

    actor, critic = Actor(), Critic()


optimizers = (torch.optim.Adam(Nets.actor.parameters(), lr=1e-3), torch.optim.Adam(Nets.critic.parameters(), lr=5e-3))
warm = [torch.optim.lr_scheduler.LinearLR(o, start_factor=0.1, total_iters=50) for o in optimizers]


def choose(obs):
    with torch.no_grad():
        p = Nets.actor(torch.from_numpy(obs)).exp()
    return int(torch.multinomial(p, 1))


def entropy(log_p):
    return -(log_p.exp() * log_p).sum(-1)


def td_target(r, s2, terminated):
    with torch.no_grad():
        return r + 0.97 * torch.where(terminated, torch.zeros_like(r), Nets.critic(s2))


def learn(rows):
    s, a, r, s2, terminated = zip(*rows)
    s, s2 = torch.tensor(np.array(s)), torch.tensor(np.array(s2))
    y = td_target(torch.tensor(r, dtype=torch.float32) / 10, s2, torch.tensor(terminated))
    v = Nets.critic(s)
    delta = (y - v).detach()
    log_p = Nets.actor(s)
    actor_loss = -(log_p.gather(1, torch.tensor(a).unsqueeze(1)).squeeze(1) * delta + 0.01 * entropy(log_p)).mean()
    critic_loss = F.mse_loss(v, y)
    for o in optimizers:
        o.zero_grad()
    (actor_loss + critic_loss).backward()
    for net in (Nets.actor, Nets.critic):
        nn.utils.clip_grad_norm_(net.parameters(), 2.0)
    for o, w in zip(optimizers, warm):
        o.step()
        w.step()


env = gym.make("CartPole-v1")
history = []
for episode in range(100):
    obs, _ = env.reset(seed=episode)
    rows, score, over = [], 0, False
    while not over:
        a = choose(obs)
        nxt, r, terminated, truncated, _ = env.step(a)
        rows.append((obs, a, r, nxt, terminated))
        obs, score, over = nxt, score + 1, terminated or truncated
        if len(rows) == 8 or over:
            learn(rows)
            rows = []
    history.append(score)
    if episode % 30 == 29:
        print(episode + 1, np.mean(history[-30:]))
