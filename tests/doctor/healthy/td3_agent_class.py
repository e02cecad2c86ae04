import copy

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


class PointMass:
    """Two thrusters, reach the origin and stay there. Leaving the arena is fatal, 40 steps are the limit."""

    obs_dim, act_dim, act_limit = 4, 2, 1.0

    def __init__(self, rng):
        self.rng = rng

    def reset(self):
        self.p, self.v, self.t = self.rng.uniform(-1, 1, 2), np.zeros(2), 0
        return np.concatenate([self.p, self.v]).astype(np.float32)

    def step(self, a):
        self.v = 0.7 * self.v + 0.15 * np.asarray(a)
        self.p = self.p + self.v
        self.t += 1
        lost = bool(np.abs(self.p).max() > 2.0)
        reward = -np.abs(self.p).sum() - (10.0 if lost else 0.0)
        return np.concatenate([self.p, self.v]).astype(np.float32), reward, lost, self.t >= 40


class TwinQ(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.q1 = nn.Sequential(nn.Linear(n, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1))
        self.q2 = nn.Sequential(nn.Linear(n, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, s, a):
        sa = torch.cat([s, a], 1)
        return self.q1(sa), self.q2(sa)

    def Q1(self, s, a):
        return self.q1(torch.cat([s, a], 1))


class TD3:
    def __init__(self, env, gamma=0.95, tau=0.02, policy_noise=0.2, noise_clip=0.5, policy_freq=2):
        self.max_action = env.act_limit
        self.actor = nn.Sequential(
            nn.Linear(env.obs_dim, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, env.act_dim), nn.Tanh()
        )
        self.actor_target = copy.deepcopy(self.actor)
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), lr=2e-3)
        self.critic = TwinQ(env.obs_dim + env.act_dim)
        self.critic_target = copy.deepcopy(self.critic)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), lr=2e-3)
        self.gamma, self.tau, self.policy_freq = gamma, tau, policy_freq
        self.policy_noise, self.noise_clip = policy_noise, noise_clip
        self.total_it = 0

    def select_action(self, state):
        state = torch.FloatTensor(state.reshape(1, -1))
        return self.actor(state).cpu().data.numpy().flatten()

    def train(self, batch):
        self.total_it += 1
        state, action, reward, next_state, not_done = batch
        with torch.no_grad():
            noise = (torch.randn_like(action) * self.policy_noise).clamp(-self.noise_clip, self.noise_clip)
            next_action = (self.actor_target(next_state) + noise).clamp(-self.max_action, self.max_action)
            target_q1, target_q2 = self.critic_target(next_state, next_action)
            target_q = reward + not_done * self.gamma * torch.min(target_q1, target_q2)

        q1, q2 = self.critic(state, action)
        critic_loss = F.mse_loss(q1, target_q) + F.mse_loss(q2, target_q)
        self.critic_optimizer.zero_grad()
        critic_loss.backward()
        self.critic_optimizer.step()

        if self.total_it % self.policy_freq == 0:
            actor_loss = -self.critic.Q1(state, self.actor(state)).mean()
            self.actor_optimizer.zero_grad()
            actor_loss.backward()
            self.actor_optimizer.step()
            for p, tp in zip(self.critic.parameters(), self.critic_target.parameters()):
                tp.data.copy_(self.tau * p.data + (1 - self.tau) * tp.data)
            for p, tp in zip(self.actor.parameters(), self.actor_target.parameters()):
                tp.data.copy_(self.tau * p.data + (1 - self.tau) * tp.data)
        return critic_loss.item()


if __name__ == "__main__":
    rng = np.random.default_rng(8)
    torch.manual_seed(8)
    env = PointMass(rng)
    agent = TD3(env)
    data = []
    for ep in range(18):
        s, ep_ret, stop = env.reset(), 0.0, False
        while not stop:
            if ep < 5:
                a = rng.uniform(-1, 1, 2)
            else:
                a = (agent.select_action(s) + rng.normal(0, 0.1, 2)).clip(-1, 1)
            s2, r, terminated, truncated = env.step(a)
            data.append((s, a, [r], s2, [1.0 - float(terminated)]))
            s, ep_ret, stop = s2, ep_ret + r, terminated or truncated
            if ep >= 5:
                rows = [data[k] for k in rng.integers(0, len(data), 48)]
                loss = agent.train([torch.FloatTensor(np.array(col)) for col in zip(*rows)])
        if ep >= 5 and ep % 3 == 2:
            print(f"episode {ep}  return {ep_ret:.2f}  critic loss {loss:.4f}  updates {agent.total_it}")
