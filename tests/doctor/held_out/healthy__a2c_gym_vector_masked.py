import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.distributions import Categorical

torch.manual_seed(1)
N, T, GAMMA, LAM = 8, 32, 0.98, 0.95
# default autoreset: the step after the end of an episode is the reset, its action is ignored
envs = gym.make_vec("CartPole-v1", num_envs=N, vectorization_mode="sync")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.shared = nn.Sequential(nn.Linear(4, 64), nn.Tanh())
        self.heads = nn.ModuleDict({"pi": nn.Linear(64, 2), "v": nn.Linear(64, 1)})
        nn.init.orthogonal_(self.heads["pi"].weight, 0.01)

    def forward(self, x):
        h = self.shared(x)
        return Categorical(logits=self.heads["pi"](h)), self.heads["v"](h).squeeze(-1)


net = Net()
opt = torch.optim.Adam(net.parameters(), lr=4e-3)
obs, _ = envs.reset(seed=1)
was_over = np.zeros(N, bool)
ep, finished = np.zeros(N), []
for it in range(80):
    seq = {k: [] for k in "o a r term over valid".split()}
    for _ in range(T):
        x = torch.as_tensor(obs, dtype=torch.float32)
        with torch.no_grad():
            a = net(x)[0].sample()
        obs, r, term, trunc, _ = envs.step(a.numpy())
        over = term | trunc
        for k, v in zip(seq, (x, a, r, term, over, ~was_over)):
            seq[k].append(torch.as_tensor(v))
        ep = np.where(was_over, 0, ep + 1)
        finished += ep[over].tolist()
        was_over = over
    o, a, r, term, over, valid = (torch.stack(v).float() for v in seq.values())
    last = torch.as_tensor(obs, dtype=torch.float32)
    dist, v = net(o)
    with torch.no_grad():
        # obs after an ending step is the true final one here, so its value may be used for time limits
        v2 = torch.cat([v[1:], net(last)[1][None]])
        delta = 0.1 * r + GAMMA * (1 - term) * v2 - v
        adv, g = torch.zeros_like(v), torch.zeros(N)
        for t in reversed(range(T)):
            g = delta[t] + GAMMA * LAM * (1 - over[t]) * g
            adv[t] = g
        ret = adv + v
        m = valid / valid.sum()
        nadv = (adv - (adv * m).sum()) / (adv[valid > 0].std() + 1e-6)
    pg = -(m * dist.log_prob(a) * nadv).sum()
    vl = (m * (v - ret).square()).sum()
    ent = (m * dist.entropy()).sum()
    opt.zero_grad()
    (pg + 0.5 * vl - 0.01 * ent).backward()
    nn.utils.clip_grad_norm_(net.parameters(), 0.5)
    opt.step()
    if it % 20 == 19:
        print(it, "episode length", np.mean(finished[-15:]), "value loss", vl.item(), "entropy", ent.item())
