"""PPO on four CartPoles, shared trunk, annealed learning rate, value clipping, early stop on KL."""
import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch.distributions import Categorical

N_ENV, N_STEP, UPDATES, EPOCHS = 4, 64, 12, 4
GAMMA, LAM, CLIP = 0.98, 0.95, 0.2


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh())
        self.pi, self.v = nn.Linear(64, 2), nn.Linear(64, 1)
        for m in self.modules():
            if isinstance(m, nn.Linear):
                nn.init.orthogonal_(m.weight, 1.0)
                nn.init.zeros_(m.bias)
        self.pi.weight.data.mul_(0.01)

    def forward(self, x):
        h = self.trunk(x)
        return Categorical(logits=self.pi(h)), self.v(h).squeeze(-1)


def main():
    torch.manual_seed(8)
    envs = SyncVectorEnv([lambda: gym.make("CartPole-v1") for _ in range(N_ENV)],
                         autoreset_mode=AutoresetMode.SAME_STEP)
    net = Net()
    opt = torch.optim.Adam(net.parameters(), lr=2e-3, eps=1e-5)
    sched = torch.optim.lr_scheduler.LambdaLR(opt, lambda u: 1.0 - 0.9 * u / UPDATES)
    obs, _ = envs.reset(seed=8)
    lengths, counter = [], np.zeros(N_ENV)
    for update in range(UPDATES):
        B = {k: [] for k in "o a lp v r cut nv".split()}
        for _ in range(N_STEP):
            o = torch.as_tensor(obs, dtype=torch.float32)
            with torch.no_grad():
                dist, v = net(o)
                a = dist.sample()
            obs, r, term, trunc, info = envs.step(a.numpy())
            counter += 1
            after = obs.copy()
            for i in np.flatnonzero(term | trunc):
                after[i] = info["final_obs"][i]
                lengths.append(counter[i])
                counter[i] = 0
            with torch.no_grad():
                nv = net(torch.as_tensor(after, dtype=torch.float32))[1] * torch.as_tensor(~term)
            for k, x in zip(B, (o, a, dist.log_prob(a), v, torch.as_tensor(r).float(),
                                torch.as_tensor(term | trunc).float(), nv)):
                B[k].append(x)
        T = {k: torch.stack(x) for k, x in B.items()}
        delta = T["r"] + GAMMA * T["nv"] - T["v"]
        adv, acc = torch.zeros_like(delta), torch.zeros(N_ENV)
        for t in range(N_STEP - 1, -1, -1):
            acc = delta[t] + GAMMA * LAM * (1 - T["cut"][t]) * acc
            adv[t] = acc
        ret = adv + T["v"]
        flat = [x.flatten(0, 1) for x in (T["o"], T["a"], T["lp"], T["v"], adv, ret)]

        stop = False
        for _ in range(EPOCHS):
            for idx in torch.randperm(N_ENV * N_STEP).view(4, -1):
                o, a, lp0, v0, ad, re = (x[idx] for x in flat)
                dist, v = net(o)
                lp = dist.log_prob(a)
                ratio = (lp - lp0).exp()
                ad = (ad - ad.mean()) / (ad.std() + 1e-8)
                pg = -torch.min(ratio * ad, ratio.clamp(1 - CLIP, 1 + CLIP) * ad).mean()
                v_clip = v0 + (v - v0).clamp(-5, 5)
                vl = 0.5 * torch.max((v - re) ** 2, (v_clip - re) ** 2).mean()
                loss = pg + 0.5 * vl - 0.01 * dist.entropy().mean()
                opt.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(net.parameters(), 0.5)
                opt.step()
            with torch.no_grad():
                kl = ((ratio - 1) - (lp - lp0)).mean().item()
            if kl > 0.05:
                stop = True
            if stop:
                break
        sched.step()
        if update % 3 == 2:
            print(f"update {update} len {np.mean(lengths[-10:]):.1f} kl {kl:.4f} lr {sched.get_last_lr()[0]:.1e}")


main()
