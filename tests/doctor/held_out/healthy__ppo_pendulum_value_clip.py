import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
from torch.distributions import Normal


class Rollout:
    def __init__(self, size):
        self.size = size
        self.obs, self.raw = torch.zeros(size, 3), torch.zeros(size, 1)
        self.logp, self.val, self.nval = torch.zeros(size), torch.zeros(size), torch.zeros(size)
        self.rew, self.cut = torch.zeros(size), torch.zeros(size)

    def advantages(self, gamma, lam):
        adv, acc = torch.zeros(self.size), 0.0
        for i in reversed(range(self.size)):
            delta = self.rew[i] + gamma * self.nval[i] - self.val[i]
            acc = delta + gamma * lam * (1 - self.cut[i]) * acc
            adv[i] = acc
        return adv


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.mu = nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))
        self.v = nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))
        self.log_std = nn.Parameter(torch.zeros(1))

    def pi(self, o):
        return Normal(self.mu(o), torch.exp(torch.clamp(self.log_std, -2.0, 0.7)))


def main():
    torch.manual_seed(2)
    env = gym.make("Pendulum-v1")
    model = Model()
    opt = torch.optim.Adam(model.parameters(), lr=1e-3)
    obs, _ = env.reset(seed=2)
    eps = 0.2
    for it in range(5):
        buf = Rollout(400)
        for t in range(buf.size):
            with torch.no_grad():
                o = torch.as_tensor(obs)
                pi = model.pi(o)
                raw = pi.sample()
                buf.obs[t], buf.raw[t] = o, raw
                buf.logp[t] = pi.log_prob(raw).sum()
                buf.val[t] = model.v(o)[0]
            # only the environment sees the limited torque
            torque = np.clip(raw.numpy(), -2.0, 2.0)
            obs, r, term, trunc, _ = env.step(torque)
            with torch.no_grad():
                buf.nval[t] = 0.0 if term else model.v(torch.as_tensor(obs))[0]
            buf.rew[t] = r / 8.0 + 1.0
            buf.cut[t] = float(term or trunc)
            if term or trunc:
                obs, _ = env.reset()
        adv = buf.advantages(0.95, 0.95)
        ret = adv + buf.val
        adv = (adv - adv.mean()) / (adv.std() + 1e-8)
        for _ in range(6):
            for b in torch.randperm(buf.size).split(100):
                pi = model.pi(buf.obs[b])
                logp = pi.log_prob(buf.raw[b]).sum(-1)
                ratio = torch.exp(logp - buf.logp[b])
                pg = -torch.min(ratio * adv[b], ratio.clamp(1 - eps, 1 + eps) * adv[b]).mean()
                v = model.v(buf.obs[b]).squeeze(-1)
                v_clip = buf.val[b] + (v - buf.val[b]).clamp(-1.0, 1.0)
                vl = 0.5 * torch.max((v - ret[b]) ** 2, (v_clip - ret[b]) ** 2).mean()
                opt.zero_grad(set_to_none=True)
                (pg + 0.5 * vl - 0.001 * pi.entropy().mean()).backward()
                nn.utils.clip_grad_norm_(model.parameters(), 0.5)
                opt.step()
        print(f"iter {it}: reward {buf.rew.mean().item():.3f} value loss {vl.item():.3f} std {model.log_std.exp().item():.3f}")


if __name__ == "__main__":
    main()
