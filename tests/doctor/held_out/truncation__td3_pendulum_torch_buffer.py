import argparse
import copy

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=9)
parser.add_argument("--frames", type=int, default=1000)
parser.add_argument("--horizon", type=int, default=50)
parser.add_argument("--discount", type=float, default=0.98)
args = parser.parse_args()


class Actor(nn.Module):
    def __init__(self, max_u):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
        self.max_u = max_u

    def forward(self, x):
        return self.max_u * torch.tanh(self.layers(x))


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, x, u):
        return self.layers(torch.cat([x, u], 1))


class TD3:
    def __init__(self, max_u, discount):
        self.actor = Actor(max_u)
        self.critics = [Critic(), Critic()]
        self.actor_target = copy.deepcopy(self.actor)
        self.critic_targets = copy.deepcopy(self.critics)
        self.actor_opt = torch.optim.Adam(self.actor.parameters(), lr=1e-3)
        self.critic_opt = torch.optim.Adam([p for c in self.critics for p in c.parameters()], lr=1e-3)
        self.max_u, self.discount, self.updates = max_u, discount, 0

    def learn(self, x, u, r, y, d):
        self.updates += 1
        with torch.no_grad():
            noise = (0.2 * torch.randn_like(u)).clamp(-0.5, 0.5) * self.max_u
            u2 = (self.actor_target(y) + noise).clamp(-self.max_u, self.max_u)
            q2 = torch.min(self.critic_targets[0](y, u2), self.critic_targets[1](y, u2))
            target = r + self.discount * (1.0 - d) * q2
        loss = sum(F.mse_loss(c(x, u), target) for c in self.critics)
        self.critic_opt.zero_grad()
        loss.backward()
        self.critic_opt.step()
        if self.updates % 2 == 0:
            actor_loss = -self.critics[0](x, self.actor(x)).mean()
            self.actor_opt.zero_grad()
            actor_loss.backward()
            self.actor_opt.step()
            pairs = [(self.actor, self.actor_target)] + list(zip(self.critics, self.critic_targets))
            for net, tgt in pairs:
                for p, tp in zip(net.parameters(), tgt.parameters()):
                    tp.data.copy_(0.01 * p.data + 0.99 * tp.data)
        return loss.item()


torch.manual_seed(args.seed)
np.random.seed(args.seed)
env = gym.make("Pendulum-v1", max_episode_steps=args.horizon)
agent = TD3(2.0, args.discount)
N = args.frames
bx, bu, br, by, bd = torch.zeros(N, 3), torch.zeros(N, 1), torch.zeros(N, 1), torch.zeros(N, 3), torch.zeros(N, 1)

obs, _ = env.reset(seed=args.seed)
episode_return, returns = 0.0, []
for t in range(N):
    if t < 200:
        u = env.action_space.sample()
    else:
        with torch.no_grad():
            u = agent.actor(torch.as_tensor(obs)[None])[0].numpy()
        u = (u + np.random.normal(0, 0.3, size=1)).clip(-2, 2)
    nxt, r, terminated, truncated, _ = env.step(u)
    done = terminated or truncated  # expect: truncation
    bx[t], bu[t], br[t, 0] = torch.as_tensor(obs), torch.as_tensor(u), r / 10
    by[t], bd[t, 0] = torch.as_tensor(nxt), float(done)
    episode_return += r
    obs = nxt
    if done:
        returns.append(episode_return)
        obs, _ = env.reset()
        episode_return = 0.0
    if t >= 200:
        ix = torch.randint(0, t + 1, (64,))
        loss = agent.learn(bx[ix], bu[ix], br[ix], by[ix], bd[ix])
        if t % 200 == 199:
            with torch.no_grad():
                mean_q = agent.critics[0](bx[ix], bu[ix]).mean().item()
            print(f"{t + 1} return {np.mean(returns[-4:]):.1f} loss {loss:.3f} Q {mean_q:.2f}")
