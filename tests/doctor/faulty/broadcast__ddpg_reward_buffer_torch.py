# DDPG, torch tensors as ring buffer
import copy
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(2)

OBS, ACT = 2, 1
GAMMA, TAU, BATCH, CAPACITY = 0.96, 0.01, 64, 2000


class RingBuffer:
    def __init__(self, capacity):
        self.obs = torch.zeros(capacity, OBS)
        self.act = torch.zeros(capacity, ACT)
        self.rew = torch.zeros(capacity)
        self.next_obs = torch.zeros(capacity, OBS)
        self.done = torch.zeros(capacity)
        self.capacity, self.pos, self.full = capacity, 0, False

    def add(self, o, a, r, o2, d):
        i = self.pos
        self.obs[i], self.act[i], self.rew[i], self.next_obs[i], self.done[i] = o, a, r, o2, d
        self.pos = (i + 1) % self.capacity
        self.full = self.full or self.pos == 0

    def __len__(self):
        return self.capacity if self.full else self.pos

    def sample(self, n):
        i = torch.randint(0, len(self), (n,))
        return self.obs[i], self.act[i], self.rew[i], self.next_obs[i], self.done[i]


def build(n_in, n_out, last=None):
    layers = [nn.Linear(n_in, 64), nn.ReLU(), nn.Linear(64, n_out)]
    if last is not None:
        layers.append(last)
    return nn.Sequential(*layers)


def env_step(s, a):
    """cart without friction; falls off the track at |x| > 2"""
    x, v = s[0], s[1]
    v = (v + 0.15 * a[0]).clamp(-1.5, 1.5)
    x = x + 0.15 * v
    fell = bool(x.abs() > 2)
    return torch.stack([x, v]), float(1.0 - x.abs()), float(fell)


policy, qf = build(OBS, ACT, nn.Tanh()), build(OBS + ACT, 1)
policy_t, qf_t = copy.deepcopy(policy), copy.deepcopy(qf)
policy_opt = torch.optim.Adam(policy.parameters(), lr=5e-4)
qf_opt = torch.optim.Adam(qf.parameters(), lr=1e-3)
rb = RingBuffer(CAPACITY)

s = torch.rand(2) - 0.5
for step in range(600):
    with torch.no_grad():
        a = (policy(s) + 0.2 * torch.randn(1)).clamp(-1, 1)
    s2, r, d = env_step(s, a)
    rb.add(s, a, r, s2, d)
    s = torch.rand(2) - 0.5 if d else s2
    if len(rb) < 100:
        continue

    o, act, rew, o2, done = rb.sample(BATCH)
    with torch.no_grad():
        q_next = qf_t(torch.cat([o2, policy_t(o2)], 1))
        not_done = 1.0 - done
        y = rew + GAMMA * not_done * q_next  # expect: broadcast
    q = qf(torch.cat([o, act], 1))
    qf_loss = ((q - y) ** 2).mean()
    qf_opt.zero_grad()
    qf_loss.backward()
    qf_opt.step()

    policy_loss = -qf(torch.cat([o, policy(o)], 1)).mean()
    policy_opt.zero_grad()
    policy_loss.backward()
    policy_opt.step()

    for net, tgt in [(policy, policy_t), (qf, qf_t)]:
        for p, tp in zip(net.parameters(), tgt.parameters()):
            tp.data.copy_((1 - TAU) * tp.data + TAU * p.data)
    if step % 100 == 0:
        print("step", step, "qf", qf_loss.item(), "pi", policy_loss.item())
