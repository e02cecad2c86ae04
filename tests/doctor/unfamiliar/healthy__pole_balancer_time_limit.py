import gymnasium as gym
import torch
import torch.nn.functional as F

# pole balancing with short bouts; parameters are bare tensors, one bout per update


def theta0(rng, h=32):
    r = lambda *s: torch.randn(*s, generator=rng)
    return [t.requires_grad_(True) for t in (r(h, 4) * 0.5, torch.zeros(h), r(2, h) * 0.05, torch.zeros(2),
                                             r(h, 4) * 0.5, torch.zeros(h), r(1, h) * 0.05, torch.zeros(1))]


def logits(th, x):
    return F.linear(torch.tanh(F.linear(x, th[0], th[1])), th[2], th[3])


def value(th, x):
    return F.linear(torch.tanh(F.linear(x, th[4], th[5])), th[6], th[7])[..., 0]


def bout(env, th, rng, seed=None):
    x, _ = env.reset(seed=seed)
    over, rows = False, []
    while not over:
        p = torch.softmax(logits(th, torch.as_tensor(x)), -1).detach()
        a = torch.multinomial(p, 1, generator=rng).item()
        x2, r, fell, late, _ = env.step(a)
        rows.append((x.tolist(), a, r, x2.tolist(), float(fell)))
        x, over = x2, fell or late
    return [torch.tensor(c) for c in zip(*rows)]


def returns(th, r, x2, fell, gamma=0.98):
    with torch.no_grad():
        acc = value(th, x2[-1]) * (1 - fell[-1])
    G = []
    for ri in r.flip(0):
        acc = ri + gamma * acc
        G.append(acc)
    return torch.stack(G).flip(0)


rng = torch.Generator().manual_seed(15)
env = gym.make("CartPole-v1", max_episode_steps=50)
th = theta0(rng)
o_pi, o_v = torch.optim.Adam(th[:4], lr=1e-2), torch.optim.Adam(th[4:], lr=1e-2)
lengths = []
for k in range(100):
    x, a, r, x2, fell = bout(env, th, rng, seed=15 if k == 0 else None)
    G = returns(th, r.float(), x2, fell)
    v = value(th, x)
    A = (G - v).detach() / 10
    lp = -F.cross_entropy(logits(th, x), a, reduction="none")
    o_pi.zero_grad()
    (-(lp * A).mean()).backward()
    o_pi.step()
    o_v.zero_grad()
    (0.5 * (G - v).square().mean()).backward()
    o_v.step()
    lengths.append(len(r))
    if k % 20 == 19:
        print(f"bout {k + 1}: length {sum(lengths[-20:]) / 20:.1f} fell {bool(fell[-1])}")
