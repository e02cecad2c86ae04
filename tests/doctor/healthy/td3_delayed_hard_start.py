import numpy as np, torch, torch.nn as nn, torch.nn.functional as F
np.random.seed(1); torch.manual_seed(1)

# cart on a rail, push it to the origin
def env_reset():
    return np.array([np.random.uniform(-1, 1), 0.], dtype=np.float32)

def env_step(s, u):
    x, v = s
    v = 0.95*v + 0.1*float(u)
    x = x + v
    out = abs(x) > 2
    r = 1 - x*x - .1*v*v - .01*float(u)**2 - (10 if out else 0)
    return np.array([x, v], dtype=np.float32), float(r), out

class A(nn.Module):
    def __init__(s):
        super().__init__(); s.l1 = nn.Linear(2, 64); s.l2 = nn.Linear(64, 1)
    def forward(s, x): return torch.tanh(s.l2(F.relu(s.l1(x))))

class C(nn.Module):
    def __init__(s):
        super().__init__()
        s.q1 = nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 1))
        s.q2 = nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 1))
    def forward(s, x, u):
        z = torch.cat([x, u], 1); return s.q1(z), s.q2(z)
    def Q1(s, x, u): return s.q1(torch.cat([x, u], 1))

actor, actor_t, critic, critic_t = A(), A(), C(), C()
actor_t.load_state_dict(actor.state_dict()); critic_t.load_state_dict(critic.state_dict())
for p in list(actor_t.parameters()) + list(critic_t.parameters()): p.requires_grad = False
ao = torch.optim.Adam(actor.parameters(), 5e-4); co = torch.optim.Adam(critic.parameters(), 1e-3)

S=np.zeros((4000,2),np.float32); U=np.zeros((4000,1),np.float32); R=np.zeros((4000,1),np.float32); S2=S.copy(); D=R.copy(); n=0
s, t, total, totals = env_reset(), 0, 0., []
for it in range(1800):
    with torch.no_grad(): u = actor(torch.tensor(s[None])).numpy()[0]
    u = (u + np.random.normal(0, .2, 1)).clip(-1, 1)
    s2, r, crashed = env_step(s, u[0]); t += 1; total += r
    S[n], U[n], R[n], S2[n], D[n] = s, u, r, s2, crashed; n += 1
    timeup = t >= 50
    s = s2
    if crashed or timeup:
        totals.append(total); s, t, total = env_reset(), 0, 0.
    if n < 200: continue
    k = np.random.randint(0, n, 64)
    bs, bu, br, bs2, bd = (torch.from_numpy(x[k]) for x in (S, U, R, S2, D))
    u2 = (actor_t(bs2) + (.2*torch.randn_like(bu)).clamp(-.5, .5)).clamp(-1, 1)
    y = br + .97*(1 - bd)*torch.min(*critic_t(bs2, u2))
    q1, q2 = critic(bs, bu)
    co.zero_grad(); (F.mse_loss(q1, y) + F.mse_loss(q2, y)).backward(); co.step()
    if it % 2 == 0:
        ao.zero_grad(); (-critic.Q1(bs, actor(bs)).mean()).backward(); ao.step()
        for a, b in ((actor, actor_t), (critic, critic_t)):
            for p, q in zip(a.parameters(), b.parameters()): q.data.mul_(.99).add_(p.data, alpha=.01)
    if it % 450 == 449: print(it, 'mean return', np.mean(totals[-8:]))
