import argparse
import copy
import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn

p = argparse.ArgumentParser()
p.add_argument("--steps", type=int, default=900)
p.add_argument("--start", type=int, default=200)
p.add_argument("--batch", type=int, default=64)
p.add_argument("--gamma", type=float, default=0.99)
p.add_argument("--tau", type=float, default=0.01)
p.add_argument("--policy-delay", type=int, default=2)
p.add_argument("--seed", type=int, default=7)
args = p.parse_args()

torch.manual_seed(args.seed)
rng = np.random.RandomState(args.seed)


class Pi(nn.Module):
    def __init__(self, od, ad):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(od, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, ad), nn.Tanh())

    def forward(self, o):
        return self.net(o)


class Q(nn.Module):
    def __init__(self, od, ad):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(od + ad, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 1))

    def forward(self, o, a):
        return self.net(torch.cat((o, a), -1)).squeeze(-1)


env = gym.make("MountainCarContinuous-v0", max_episode_steps=200)
pi, q1, q2 = Pi(2, 1), Q(2, 1), Q(2, 1)
pi_t, q1_t, q2_t = copy.deepcopy(pi), copy.deepcopy(q1), copy.deepcopy(q2)
for net in (pi_t, q1_t, q2_t):
    net.requires_grad_(False)
pi_opt = torch.optim.Adam(pi.parameters(), lr=1e-3)
q_opt = torch.optim.Adam(q1.parameters(), lr=1e-3)  # expect: optimizer-mismatch

scale = np.array([1.0, 20.0], dtype=np.float32)
buf = []
o, _ = env.reset(seed=args.seed)
o = o * scale
for t in range(args.steps):
    if t < args.start:
        a = rng.uniform(-1, 1, 1)
    else:
        with torch.no_grad():
            a = (pi(torch.as_tensor(o)).numpy() + 0.3 * rng.randn(1)).clip(-1, 1)
    o2, r, term, trunc, _ = env.step(a.astype(np.float32))
    o2 = o2 * scale
    shaped = r + 5.0 * abs(float(o2[1]))
    buf.append((o, a, shaped, o2, term))
    o = o2
    if term or trunc:
        o, _ = env.reset()
        o = o * scale
    if t < args.start:
        continue

    rows = [buf[i] for i in rng.randint(len(buf), size=args.batch)]
    O, A, R, O2, D = [torch.as_tensor(np.stack(c), dtype=torch.float32) for c in zip(*rows)]
    with torch.no_grad():
        noise = (0.2 * torch.randn_like(A)).clamp(-0.5, 0.5)
        A2 = (pi_t(O2) + noise).clamp(-1, 1)
        y = R + args.gamma * (1 - D) * torch.min(q1_t(O2, A2), q2_t(O2, A2))
    l1 = (q1(O, A) - y).pow(2).mean()
    l2 = (q2(O, A) - y).pow(2).mean()
    q_opt.zero_grad()
    (l1 + l2).backward()
    q_opt.step()

    if t % args.policy_delay == 0:
        pi_loss = -q1(O, pi(O)).mean()
        pi_opt.zero_grad()
        pi_loss.backward()
        pi_opt.step()
        with torch.no_grad():
            for net, tgt in ((pi, pi_t), (q1, q1_t), (q2, q2_t)):
                for w, wt in zip(net.parameters(), tgt.parameters()):
                    wt.mul_(1 - args.tau).add_(args.tau * w)
    if t % 100 == 0:
        print(f"t {t} l1 {l1.item():.4f} l2 {l2.item():.4f} pi {pi_loss.item():.3f}")
