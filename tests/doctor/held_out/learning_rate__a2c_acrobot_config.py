import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.distributions import Categorical

CONFIG = {
    "env": "Acrobot-v1",
    "seed": 12,
    "n_envs": 4,
    "n_steps": 16,
    "updates": 60,
    "gamma": 0.99,
    "lr": 7e-14,  # expect: learning-rate
    "alpha": 0.99,
    "rms_eps": 1e-5,
    "ent_coef": 0.01,
    "vf_coef": 0.25,
    "max_grad_norm": 0.5,
}


class SharedNet(nn.Module):
    def __init__(self, n_obs, n_act):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(n_obs, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh())
        self.pi = nn.Linear(64, n_act)
        self.v = nn.Linear(64, 1)

    def forward(self, x):
        h = self.trunk(x)
        return Categorical(logits=self.pi(h)), self.v(h).squeeze(-1)


def run(cfg):
    torch.manual_seed(cfg["seed"])
    envs = [gym.make(cfg["env"]) for _ in range(cfg["n_envs"])]
    obs = np.stack([e.reset(seed=cfg["seed"] + i)[0] for i, e in enumerate(envs)])
    net = SharedNet(6, 3)
    optimizer = torch.optim.RMSprop(net.parameters(), lr=cfg["lr"], alpha=cfg["alpha"], eps=cfg["rms_eps"])
    heights = []
    for u in range(cfg["updates"]):
        logps, vals, ents, rews, terms, ends, nxts = [], [], [], [], [], [], []
        for _ in range(cfg["n_steps"]):
            dist, v = net(torch.from_numpy(obs))
            a = dist.sample()
            nxt, rew, term, end = [], [], [], []
            for e, ai in zip(envs, a.tolist()):
                o2, r, te, tr, _ = e.step(ai)
                # a bit of shaping: height of the tip
                tip = -o2[0] - (o2[0] * o2[2] - o2[1] * o2[3])
                heights.append(tip)
                rew.append(r + 0.5 * float(tip))
                nxt.append(o2)
                term.append(float(te))
                end.append(te or tr)
            logps.append(dist.log_prob(a)); vals.append(v); ents.append(dist.entropy())
            rews.append(torch.tensor(rew)); terms.append(torch.tensor(term))
            ends.append(torch.tensor(end)); nxts.append(np.stack(nxt))
            obs = np.stack([e.reset()[0] if d else o for e, d, o in zip(envs, end, nxt)])
        with torch.no_grad():
            nv = [net(torch.from_numpy(n))[1] for n in nxts]
            ret, targets = nv[-1], []
            for k in reversed(range(cfg["n_steps"])):
                # at an episode's end take the value of its own last state
                tail = torch.where(ends[k], nv[k], ret)
                ret = rews[k] + cfg["gamma"] * (1 - terms[k]) * tail
                targets.append(ret)
            targets = torch.stack(targets[::-1])
        vals = torch.stack(vals)
        adv = (targets - vals).detach()
        policy_loss = -(torch.stack(logps) * adv).mean()
        value_loss = (targets - vals).pow(2).mean()
        loss = policy_loss + cfg["vf_coef"] * value_loss - cfg["ent_coef"] * torch.stack(ents).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), cfg["max_grad_norm"])
        optimizer.step()
        if u % 10 == 9:
            print(f"update {u + 1} tip {np.mean(heights[-600:]):.3f} vloss {value_loss.item():.3f} entropy {torch.stack(ents).mean().item():.4f}")


run(CONFIG)
