# soft actor-critic, two critics, fixed temperature; obstacle-free 2D navigation
import copy

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Normal

torch.manual_seed(10)
np.random.seed(10)
ALPHA, GAMMA, TAU = 0.1, 0.95, 0.02
LOG_STD_MIN, LOG_STD_MAX = -4, 1


class Policy(nn.Module):
    def __init__(self, obs_dim, act_dim):
        super().__init__()
        self.l1, self.l2 = nn.Linear(obs_dim, 64), nn.Linear(64, 64)
        self.mu, self.log_std = nn.Linear(64, act_dim), nn.Linear(64, act_dim)

    def forward(self, s):
        h = F.relu(self.l2(F.relu(self.l1(s))))
        return self.mu(h), torch.clamp(self.log_std(h), LOG_STD_MIN, LOG_STD_MAX)

    def sample(self, s):
        mu, log_std = self(s)
        normal = Normal(mu, log_std.exp())
        x = normal.rsample()
        y = torch.tanh(x)
        log_prob = normal.log_prob(x) - torch.log(1 - y.pow(2) + 1e-6)
        return y, log_prob.sum(1, keepdim=True)


def q_net():
    return nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 1))


policy = Policy(4, 2)
q1, q2 = q_net(), q_net()
q1_t, q2_t = copy.deepcopy(q1), copy.deepcopy(q2)
policy_opt = torch.optim.Adam(policy.parameters(), lr=1e-3)
q_opt = torch.optim.Adam(list(q1.parameters()) + list(q2.parameters()), lr=1e-3)

N = 3000
mem = {k: np.zeros((N, d), dtype=np.float32) for k, d in dict(s=4, a=2, r=1, s2=4).items()}
goal = np.random.uniform(-1, 1, 2)
pos = np.zeros(2)
for t in range(420):
    s = np.concatenate([pos, goal]).astype(np.float32)
    with torch.no_grad():
        a = policy.sample(torch.from_numpy(s)[None])[0][0].numpy()
    pos = np.clip(pos + 0.2 * a, -2, 2)
    s2 = np.concatenate([pos, goal]).astype(np.float32)
    mem["s"][t], mem["a"][t], mem["r"][t], mem["s2"][t] = s, a, -np.linalg.norm(pos - goal), s2
    if t % 25 == 24:
        goal, pos = np.random.uniform(-1, 1, 2), np.zeros(2)
    if t < 100:
        continue

    i = np.random.randint(0, t, 64)
    bs, ba, br, bs2 = (torch.from_numpy(mem[k][i]) for k in ("s", "a", "r", "s2"))
    with torch.no_grad():
        a2, lp2 = policy.sample(bs2)
        x2 = torch.cat([bs2, a2], 1)
        y = br + GAMMA * (torch.min(q1_t(x2), q2_t(x2)) - ALPHA * lp2)
    x = torch.cat([bs, ba], 1)
    q_loss = F.mse_loss(q1(x), y) + F.mse_loss(q2(x), y)
    q_opt.zero_grad()
    q_loss.backward()
    q_opt.step()

    new_a, lp = policy.sample(bs)
    xp = torch.cat([bs, new_a], 1)
    min_q = torch.min(q1(xp), q2(xp))
    policy_loss = -(ALPHA * lp + min_q).mean()  # expect: wrong-sign
    policy_opt.zero_grad()
    policy_loss.backward()
    policy_opt.step()

    for net, tgt in ((q1, q1_t), (q2, q2_t)):
        for p, tp in zip(net.parameters(), tgt.parameters()):
            tp.data.copy_(TAU * p.data + (1 - TAU) * tp.data)
    if t % 60 == 0:
        print(t, "q %.4f" % q_loss.item(), "pi %.4f" % policy_loss.item(), "logp %.3f" % lp.mean().item())
