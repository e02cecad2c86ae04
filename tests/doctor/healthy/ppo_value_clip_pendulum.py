"""PPO with value clipping on Pendulum (time limit is bootstrapped, actions are clipped for the environment only)."""
import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.distributions import Normal

torch.manual_seed(0)
np.random.seed(0)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.v = nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))
        self.mu = nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))
        self.log_std = nn.Parameter(torch.zeros(1))

    def dist(self, x):
        return Normal(self.mu(x), self.log_std.clamp(-2.0, 0.7).exp())


net = Net()
opt = torch.optim.Adam(net.parameters(), lr=1e-3, eps=1e-5)
env = gym.make("Pendulum-v1")
N, ITERS, GAMMA, LAM = 400, 8, 0.95, 0.95
sched = torch.optim.lr_scheduler.LinearLR(opt, 1.0, 0.3, total_iters=ITERS)

obs, _ = env.reset(seed=0)
ret, rets = 0.0, []
for it in range(ITERS):
    O, A = torch.zeros(N, 3), torch.zeros(N, 1)
    LP, V, NV, R, END = (torch.zeros(N) for _ in range(5))
    for i in range(N):
        x = torch.from_numpy(obs)
        with torch.inference_mode():
            d = net.dist(x)
            a = d.sample()
            LP[i], V[i] = d.log_prob(a).sum().item(), net.v(x).item()
        O[i], A[i] = x, a.clone()
        obs, r, term, trunc, _ = env.step(a.clamp(-2, 2).numpy())
        ret += r
        with torch.no_grad():
            NV[i] = 0.0 if term else net.v(torch.from_numpy(obs)).item()
        R[i], END[i] = r / 8, float(term or trunc)
        if term or trunc:
            rets.append(ret)
            ret = 0.0
            obs, _ = env.reset()
    adv, acc = torch.zeros(N), 0.0
    for i in range(N - 1, -1, -1):
        acc = R[i] + GAMMA * NV[i] - V[i] + GAMMA * LAM * (1 - END[i]) * acc
        adv[i] = acc
    target = adv + V
    for _ in range(8):
        for mb in torch.randperm(N).split(100):
            d = net.dist(O[mb])
            logratio = d.log_prob(A[mb]).sum(1) - LP[mb]
            ratio = logratio.exp()
            a_mb = (adv[mb] - adv[mb].mean()) / (adv[mb].std() + 1e-8)
            pg = torch.max(-a_mb * ratio, -a_mb * ratio.clamp(0.8, 1.2)).mean()
            v = net.v(O[mb]).squeeze(1)
            v_clip = V[mb] + (v - V[mb]).clamp(-0.5, 0.5)
            vl = 0.5 * torch.max((v - target[mb]) ** 2, (v_clip - target[mb]) ** 2).mean()
            loss = pg + vl - 0.001 * d.entropy().mean()
            opt.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 0.5)
            opt.step()
        with torch.no_grad():
            kl = ((ratio - 1) - logratio).mean().item()
        if kl > 0.05:
            break
    sched.step()
    print(f"iter {it} return {np.mean(rets[-2:]):.0f} kl {kl:.4f}")
