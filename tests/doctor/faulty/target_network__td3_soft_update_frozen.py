# TD3 for a one-joint arm (numpy dynamics)
import copy
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(31)
np.random.seed(31)

GAMMA = 0.96
POLYAK = 1.0          # hard copy every UPDATE_EVERY steps
UPDATE_EVERY = 50


def joint(s, torque):
    angle, speed = s
    speed = 0.9 * speed + 0.3 * torque - 0.1 * np.sin(angle)
    angle = angle + 0.2 * speed
    angle = (angle + np.pi) % (2 * np.pi) - np.pi
    return np.array([angle, speed]), float(np.cos(angle - 1.0) - 0.05 * torque ** 2)


def observe(s):
    return np.array([np.cos(s[0]), np.sin(s[0]), s[1]], dtype=np.float32)


class Pi(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 48), nn.Linear(48, 1)

    def forward(self, o):
        return torch.tanh(self.b(F.relu(self.a(o))))


class Q(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 48), nn.Linear(48, 1)

    def forward(self, o, u):
        return self.b(F.relu(self.a(torch.cat([o, u], 1))))


def soft_update(source, dest, rho):
    with torch.no_grad():
        for p, p_targ in zip(source.parameters(), dest.parameters()):
            p_targ.data.copy_(rho * p_targ.data + (1 - rho) * p.data)  # expect: target-network


pi, qa, qb = Pi(), Q(), Q()
pi_targ, qa_targ, qb_targ = copy.deepcopy(pi), copy.deepcopy(qa), copy.deepcopy(qb)
pi_opt = torch.optim.Adam(pi.parameters(), lr=5e-4)
q_opt = torch.optim.Adam([*qa.parameters(), *qb.parameters()], lr=1e-3)

O, U, R, O2 = [], [], [], []
state = np.array([np.random.uniform(-3, 3), 0.0])
for t in range(550):
    o = observe(state)
    with torch.no_grad():
        u = pi(torch.from_numpy(o)).numpy()
    u = (u + 0.3 * np.random.randn(1)).clip(-1, 1).astype(np.float32)
    state, r = joint(state, float(u[0]))
    O.append(o); U.append(u); R.append([r]); O2.append(observe(state))
    if t % 50 == 49:
        state = np.array([np.random.uniform(-3, 3), 0.0])
    if t < 100:
        continue

    pick = np.random.randint(0, len(O), 64)
    bo, bu, br, bo2 = (torch.tensor(np.array([L[i] for i in pick]), dtype=torch.float32) for L in (O, U, R, O2))
    with torch.no_grad():
        eps = (0.2 * torch.randn_like(bu)).clamp(-0.4, 0.4)
        u2 = (pi_targ(bo2) + eps).clamp(-1, 1)
        y = br + GAMMA * torch.min(qa_targ(bo2, u2), qb_targ(bo2, u2))
    q_loss = F.mse_loss(qa(bo, bu), y) + F.mse_loss(qb(bo, bu), y)
    q_opt.zero_grad()
    q_loss.backward()
    q_opt.step()

    if t % 2 == 0:
        pi_loss = -qa(bo, pi(bo)).mean()
        pi_opt.zero_grad()
        pi_loss.backward()
        pi_opt.step()

    if t % UPDATE_EVERY == 0:
        for net, targ in ((pi, pi_targ), (qa, qa_targ), (qb, qb_targ)):
            soft_update(net, targ, POLYAK)
    if t % 100 == 0:
        print(f"t={t} q_loss={q_loss.item():.4f} pi_loss={pi_loss.item():.4f} reward={np.mean(R[-100:]):.3f}")
