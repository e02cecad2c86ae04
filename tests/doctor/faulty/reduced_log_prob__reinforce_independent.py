"""Episodic REINFORCE on a 2-D tracking task, one batch of episodes per update."""
import torch
import torch.nn as nn
from torch.distributions import Independent, Normal


class TrackingBatch:
    """N independent copies, each follows a circle for H steps."""

    def __init__(self, n=16, horizon=20):
        self.n, self.h = n, horizon

    def reset(self):
        self.t = 0
        self.phase = 6.28 * torch.rand(self.n)
        self.pos = torch.zeros(self.n, 2)
        return self.obs()

    def ref(self):
        ang = self.phase + 0.2 * self.t
        return torch.stack([ang.cos(), ang.sin()], -1)

    def obs(self):
        return torch.cat([self.pos, self.ref(), torch.full((self.n, 1), self.t / self.h)], -1)

    def step(self, a):
        self.pos = self.pos + 0.3 * a.clamp(-1, 1)
        r = -(self.pos - self.ref()).square().sum(-1)
        self.t += 1
        return self.obs(), r, self.t == self.h


def rewards_to_go(r, gamma=0.97):
    out, acc = torch.zeros_like(r), torch.zeros(r.shape[1])
    for t in range(r.shape[0] - 1, -1, -1):
        acc = r[t] + gamma * acc
        out[t] = acc
    return out


class Agent(nn.Module):
    def __init__(self):
        super().__init__()
        self.mean = nn.Sequential(nn.Linear(5, 64), nn.Tanh(), nn.Linear(64, 2))
        self.log_std = nn.Parameter(torch.zeros(2) - 0.5)

    def dist(self, obs):
        return Independent(Normal(self.mean(obs), self.log_std.clamp(-2, 0.5).exp()), 1)


def main():
    torch.manual_seed(10)
    env, agent = TrackingBatch(), Agent()
    opt = torch.optim.Adam(agent.parameters(), lr=3e-3)
    for update in range(150):
        obs, done = env.reset(), False
        obs_l, act_l, rew_l = [], [], []
        while not done:
            with torch.no_grad():
                a = agent.dist(obs).sample()
            nxt, r, done = env.step(a)
            obs_l.append(obs); act_l.append(a); rew_l.append(r)
            obs = nxt
        O, A, R = torch.stack(obs_l), torch.stack(act_l), torch.stack(rew_l)
        G = rewards_to_go(R)
        G = (G - G.mean()) / (G.std() + 1e-8)
        logp = agent.dist(O).log_prob(A).mean(dim=1)  # expect: reduced-log-prob
        loss = -(logp.unsqueeze(1) * G).sum(0).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        if update % 30 == 0:
            print(f"update {update:3d} return {R.sum(0).mean().item():.2f}")


if __name__ == "__main__":
    main()
