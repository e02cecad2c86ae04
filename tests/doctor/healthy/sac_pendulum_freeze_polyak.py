import itertools
from copy import deepcopy
import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.distributions.normal import Normal


def combined_shape(n, d):
    return (n,) if d is None else (n, d)


def mlp(sizes, out=nn.Identity):
    layers = []
    for j in range(len(sizes) - 1):
        layers += [nn.Linear(sizes[j], sizes[j + 1]), nn.ReLU() if j < len(sizes) - 2 else out()]
    return nn.Sequential(*layers)


class SquashedGaussianActor(nn.Module):
    def __init__(self, o, a, limit):
        super().__init__()
        self.net = nn.Sequential(mlp([o, 64, 64]), nn.ReLU())
        self.mu, self.log_std = nn.Linear(64, a), nn.Linear(64, a)
        self.limit = limit

    def forward(self, obs, deterministic=False):
        h = self.net(obs)
        mu, std = self.mu(h), self.log_std(h).clamp(-20, 2).exp()
        d = Normal(mu, std)
        u = mu if deterministic else d.rsample()
        logp = d.log_prob(u).sum(-1) - (2 * (np.log(2) - u - F.softplus(-2 * u))).sum(-1)
        return self.limit * torch.tanh(u), logp


class ActorCritic(nn.Module):
    def __init__(self, o, a, limit):
        super().__init__()
        self.pi = SquashedGaussianActor(o, a, limit)
        self.q1, self.q2 = mlp([o + a, 64, 64, 1]), mlp([o + a, 64, 64, 1])

    def q(self, obs, act):
        x = torch.cat([obs, act], -1)
        return self.q1(x).squeeze(-1), self.q2(x).squeeze(-1)

    @torch.no_grad()
    def act(self, obs):
        return self.pi(torch.as_tensor(obs))[0].numpy()


class Replay:
    def __init__(self, o, a, size):
        self.buf = {k: np.zeros(combined_shape(size, d), np.float32)
                    for k, d in dict(obs=o, obs2=o, act=a, rew=None, done=None).items()}
        self.n = 0

    def store(self, **kw):
        for k, v in kw.items():
            self.buf[k][self.n] = v
        self.n += 1

    def sample(self, k):
        i = np.random.randint(0, self.n, k)
        return {key: torch.as_tensor(v[i]) for key, v in self.buf.items()}


torch.manual_seed(0)
np.random.seed(0)
env = gym.make("Pendulum-v1")
env.action_space.seed(0)
ac = ActorCritic(3, 1, 2.0)
ac_targ = deepcopy(ac)
for p in ac_targ.parameters():
    p.requires_grad = False
q_params = list(itertools.chain(ac.q1.parameters(), ac.q2.parameters()))
pi_optimizer = torch.optim.Adam(ac.pi.parameters(), lr=1e-3)
q_optimizer = torch.optim.Adam(q_params, lr=1e-3)
replay, alpha, gamma, polyak = Replay(3, 1, 2000), 0.1, 0.98, 0.99

o, _ = env.reset(seed=0)
ret = 0.0
for t in range(700):
    a = env.action_space.sample() if t < 200 else ac.act(o)
    o2, r, terminated, truncated, _ = env.step(a)
    ret += r
    replay.store(obs=o, act=a, rew=0.1 * r, obs2=o2, done=terminated)
    o = o2
    if terminated or truncated:
        print(t + 1, "return", round(ret, 1))
        ret = 0.0
        o, _ = env.reset()
    if t < 200:
        continue
    d = replay.sample(64)
    q1, q2 = ac.q(d["obs"], d["act"])
    with torch.no_grad():
        a2, logp2 = ac.pi(d["obs2"])
        backup = d["rew"] + gamma * (1 - d["done"]) * (torch.min(*ac_targ.q(d["obs2"], a2)) - alpha * logp2)
    q_optimizer.zero_grad()
    loss_q = ((q1 - backup) ** 2).mean() + ((q2 - backup) ** 2).mean()
    loss_q.backward()
    q_optimizer.step()

    for p in q_params:
        p.requires_grad = False
    pi_optimizer.zero_grad()
    pi, logp = ac.pi(d["obs"])
    loss_pi = (alpha * logp - torch.min(*ac.q(d["obs"], pi))).mean()
    loss_pi.backward()
    pi_optimizer.step()
    for p in q_params:
        p.requires_grad = True

    with torch.no_grad():
        for p, pt in zip(ac.parameters(), ac_targ.parameters()):
            pt.data.mul_(polyak)
            pt.data.add_((1 - polyak) * p.data)
print("loss_q", loss_q.item(), "loss_pi", loss_pi.item())
