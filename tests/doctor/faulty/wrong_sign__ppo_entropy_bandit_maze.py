import argparse
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


def get_args():
    ap = argparse.ArgumentParser()
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--envs", type=int, default=16)
    ap.add_argument("--iters", type=int, default=40)
    ap.add_argument("--horizon", type=int, default=16)
    ap.add_argument("--lr", type=float, default=3e-3)
    ap.add_argument("--ent", type=float, default=0.02)
    ap.add_argument("--clip", type=float, default=0.2)
    return ap.parse_args()


class VecMaze:
    """16 small mazes in parallel: a near exit pays 0.6, a far exit pays 1."""

    def __init__(self, n, seed):
        self.n = n
        self.rng = np.random.default_rng(seed)
        self.x = np.full(n, 2)

    def obs(self):
        return torch.from_numpy(np.eye(9, dtype=np.float32)[self.x])

    def step(self, a):
        self.x = self.x + np.where(a == 1, 1, -1)
        end = (self.x <= 0) | (self.x >= 8)
        rew = np.where(self.x <= 0, 0.6, np.where(self.x >= 8, 1.0, 0.0)).astype(np.float32)
        self.x = np.where(end, 2, self.x)
        return rew, end.astype(np.float32)


class AC(nn.Module):
    def __init__(self):
        super().__init__()
        self.l = nn.Linear(9, 32)
        self.p = nn.Linear(32, 2)
        self.v = nn.Linear(32, 1)

    def forward(self, o):
        h = torch.tanh(self.l(o))
        return F.log_softmax(self.p(h), -1), self.v(h)[..., 0]


def collect(env, net, T, gamma=0.98, lam=0.95):
    O, A, LP, R, D, V = [], [], [], [], [], []
    with torch.no_grad():
        for _ in range(T):
            o = env.obs()
            lp, v = net(o)
            a = torch.multinomial(lp.exp(), 1)[:, 0]
            r, d = env.step(a.numpy())
            O.append(o); A.append(a); LP.append(lp.gather(1, a[:, None])[:, 0])
            R.append(torch.from_numpy(r)); D.append(torch.from_numpy(d)); V.append(v)
        V.append(net(env.obs())[1])
        adv, out = torch.zeros(env.n), []
        for t in range(T - 1, -1, -1):
            delta = R[t] + gamma * V[t + 1] * (1 - D[t]) - V[t]
            adv = delta + gamma * lam * (1 - D[t]) * adv
            out.append(adv)
    adv = torch.stack(out[::-1])
    ret = adv + torch.stack(V[:-1])
    flat = lambda xs: torch.stack(xs).flatten(0, 1)
    return flat(O), flat(A), flat(LP), adv.flatten(), ret.flatten(), torch.stack(R).sum() / torch.stack(D).sum().clamp(min=1)


def ppo_loss(net, o, a, lp_old, adv, ret, args):
    lp, v = net(o)
    lpa = lp.gather(1, a[:, None])[:, 0]
    ratio = torch.exp(lpa - lp_old)
    surrogate = torch.min(ratio * adv, torch.clamp(ratio, 1 - args.clip, 1 + args.clip) * adv)
    entropy = -(lp.exp() * lp).sum(-1)
    actor_loss = -surrogate.mean()
    critic_loss = F.mse_loss(v, ret)
    total = actor_loss + 0.5 * critic_loss + args.ent * entropy.mean()  # expect: wrong-sign
    return total, entropy.mean().item()


def main():
    args = get_args()
    torch.manual_seed(args.seed)
    env, net = VecMaze(args.envs, args.seed), AC()
    opt = torch.optim.Adam(net.parameters(), lr=args.lr)
    for it in range(args.iters):
        o, a, lp, adv, ret, score = collect(env, net, args.horizon)
        for _ in range(4):
            for mb in torch.randperm(len(o)).chunk(4):
                loss, h = ppo_loss(net, o[mb], a[mb], lp[mb], adv[mb], ret[mb], args)
                opt.zero_grad()
                loss.backward()
                opt.step()
        if it % 8 == 0:
            print(f"[{it}] reward per episode {score:.3f} entropy {h:.3f}")


main()
