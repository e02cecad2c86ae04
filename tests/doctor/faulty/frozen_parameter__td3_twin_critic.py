import copy
import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.nn.functional import mse_loss

torch.manual_seed(99)
rng = np.random.default_rng(99)


def mlp(sizes, out=None):
    layers = []
    for a, b in zip(sizes[:-1], sizes[1:]):
        layers += [nn.Linear(a, b), nn.ReLU()]
    layers.pop()
    if out is not None:
        layers.append(out)
    return nn.Sequential(*layers)


pi = mlp([3, 64, 1], nn.Tanh())
q1, q2 = mlp([4, 64, 1]), mlp([4, 64, 1])
pi_targ, q1_targ, q2_targ = copy.deepcopy(pi), copy.deepcopy(q1), copy.deepcopy(q2)
for net in (pi_targ, q1_targ, q2_targ):
    for p in net.parameters():
        p.requires_grad = False

pi_opt = torch.optim.Adam(pi.parameters(), lr=1e-3)
q_opt = torch.optim.Adam(list(q1.parameters()) + list(q2.parameters()), lr=1e-3)

N = 4000
S, A, R, S2, D = np.zeros((N, 3)), np.zeros((N, 1)), np.zeros((N, 1)), np.zeros((N, 3)), np.zeros((N, 1))
filled = 0


def batch(n=64):
    k = rng.integers(0, filled, n)
    return [torch.as_tensor(x[k], dtype=torch.float32) for x in (S, A, R, S2, D)]


def update(i):
    s, a, r, s2, d = batch()
    with torch.no_grad():
        eps = (0.1 * torch.randn_like(a)).clamp(-0.25, 0.25)
        a2 = (pi_targ(s2) + eps).clamp(-1, 1)
        sa2 = torch.cat([s2, a2], -1)
        y = r + 0.98 * (1 - d) * torch.minimum(q1_targ(sa2), q2_targ(sa2))
    sa = torch.cat([s, a], -1)
    loss_q = mse_loss(q1(sa), y) + mse_loss(q2(sa), y)
    q_opt.zero_grad()
    loss_q.backward()
    q_opt.step()

    if i % 2 == 0:
        # the actor's step does not need the critic's gradients
        for p in q1.parameters():
            p.requires_grad = False  # expect: frozen-parameter
        loss_pi = -q1(torch.cat([s, pi(s)], -1)).mean()
        pi_opt.zero_grad()
        loss_pi.backward()
        pi_opt.step()
        with torch.no_grad():
            for net, targ in ((pi, pi_targ), (q1, q1_targ), (q2, q2_targ)):
                for p, pt in zip(net.parameters(), targ.parameters()):
                    pt.mul_(0.99).add_(0.01 * p)
    return loss_q.item()


env = gym.make("Pendulum-v1")
o, _ = env.reset(seed=99)
ret, losses = 0.0, []
for t in range(600):
    with torch.no_grad():
        act = pi(torch.as_tensor(o)).numpy()
    act = np.clip(act + 0.2 * rng.standard_normal(1), -1, 1).astype(np.float32)
    o2, rew, terminated, truncated, _ = env.step(2 * act)
    S[filled], A[filled], R[filled], S2[filled], D[filled] = o, act, rew / 8, o2, terminated
    filled += 1
    ret += rew
    o = o2
    if t >= 150:
        losses.append(update(t))
    if terminated or truncated:
        print("t %d  return %.0f  q loss %.3f" % (t + 1, ret, np.mean(losses[-50:] or [0.0])))
        o, _ = env.reset()
        ret = 0.0
