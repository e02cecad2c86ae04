import numpy as np
import torch
import torch.nn as nn
from torch.distributions import Normal


class ReachEnv:
    """Batch of points in the plane which have to reach the origin. Ends at the goal or outside, cut after 30 steps."""

    def __init__(self, n, rng):
        self.n, self.rng, self.limit = n, rng, 30
        self.pos, self.t = np.zeros((n, 2)), np.zeros(n, dtype=int)
        self.reset(np.ones(n, dtype=bool))

    def reset(self, which):
        angle = self.rng.uniform(0, 2 * np.pi, which.sum())
        self.pos[which] = np.stack([np.cos(angle), np.sin(angle)], -1)
        self.t[which] = 0

    def step(self, a):
        self.pos += 0.2 * np.tanh(a) + 0.02 * self.rng.standard_normal((self.n, 2))
        self.t += 1
        dist = np.linalg.norm(self.pos, axis=1)
        goal, lost = dist < 0.2, dist > 2.0
        reward = -0.1 * dist + 2.0 * goal - 2.0 * lost
        terminated = goal | lost
        truncated = (self.t >= self.limit) & ~terminated
        last = self.pos.copy()
        self.reset(terminated | truncated)
        return last.astype(np.float32), reward.astype(np.float32), terminated, truncated


class PPO(nn.Module):
    def __init__(self):
        super().__init__()
        self.mu = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 2))
        self.log_std = nn.Parameter(torch.full((2,), -0.3))
        self.value = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 1))

    def dist(self, x):
        return Normal(self.mu(x), self.log_std.exp().expand(x.shape[0], -1))


def gae(rewards, values, next_values, terminated, truncated, gamma=0.97, lam=0.95):
    adv, running = np.zeros_like(rewards), 0.0
    for t in range(len(rewards) - 1, -1, -1):
        delta = rewards[t] + gamma * next_values[t] * (1 - terminated[t]) - values[t]
        running = delta + gamma * lam * (1 - (terminated[t] | truncated[t])) * running
        adv[t] = running
    return adv, adv + values


def collect(agent, env, steps):
    names = ("obs", "act", "logp", "val", "rew", "nval", "term", "trunc")
    data = {k: [] for k in names}
    with torch.no_grad():
        for _ in range(steps):
            x = torch.tensor(env.pos, dtype=torch.float32)
            d = agent.dist(x)
            a = d.sample()
            last, r, term, trunc = env.step(a.numpy())
            row = (x, a, d.log_prob(a).sum(-1), agent.value(x)[:, 0].numpy(), r,
                   agent.value(torch.from_numpy(last))[:, 0].numpy(), term, trunc)
            for k, item in zip(names, row):
                data[k].append(item)
    return data


def train():
    torch.manual_seed(5)
    rng = np.random.default_rng(5)
    env, agent = ReachEnv(16, rng), PPO()
    opt = torch.optim.Adam(agent.parameters(), lr=3e-3)
    eps, target_kl = 0.2, 0.03
    for it in range(16):
        d = collect(agent, env, 32)
        adv, ret = gae(*(np.stack(d[k]) for k in ("rew", "val", "nval", "term", "trunc")))
        obs, act, old_logp = torch.cat(d["obs"]), torch.cat(d["act"]), torch.cat(d["logp"])
        old_v = torch.from_numpy(np.stack(d["val"])).flatten()
        adv, ret = torch.from_numpy(adv).flatten(), torch.from_numpy(ret).flatten()
        adv = (adv - adv.mean()) / (adv.std() + 1e-8)
        stop, n_updates = False, 0
        for _ in range(6):
            for idx in torch.randperm(len(obs)).split(128):
                dist = agent.dist(obs[idx])
                log_ratio = dist.log_prob(act[idx]).sum(-1) - old_logp[idx]
                ratio = log_ratio.exp()
                approx_kl = ((ratio - 1) - log_ratio).mean().item()
                if approx_kl > target_kl:
                    stop = True
                    break
                surrogate = torch.min(ratio * adv[idx], ratio.clamp(1 - eps, 1 + eps) * adv[idx])
                v = agent.value(obs[idx]).squeeze(-1)
                v_clip = old_v[idx] + (v - old_v[idx]).clamp(-0.5, 0.5)
                v_loss = torch.max((v - ret[idx]) ** 2, (v_clip - ret[idx]) ** 2).mean()
                loss = -surrogate.mean() + 0.5 * v_loss - 0.003 * dist.entropy().sum(-1).mean()
                opt.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(agent.parameters(), 1.0)
                opt.step()
                n_updates += 1
            if stop:
                break
        if it % 3 == 0:
            print(f"it {it:2d} reward/step {np.mean(d['rew']):+.3f} kl {approx_kl:.4f} updates {n_updates} "
                  f"v_loss {v_loss.item():.3f} std {agent.log_std.exp().mean().item():.2f}")


if __name__ == "__main__":
    train()
