import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(12)
B = 20


class Lights:
    """B crossroads: two queues each, pick which direction gets green"""
    def __init__(self): self.q = torch.randint(0, 5, (B, 2)).float()
    def obs(self): return self.q / 10
    def step(self, a):
        arrive = torch.poisson(torch.tensor([0.9, 0.5]).expand(B, 2))
        pass_ = F.one_hot(a, 2) * 2.0
        self.q = (self.q + arrive - pass_).clamp(0, 20)
        full = (self.q == 20).any(1)
        r = -self.q.sum(1) / 20 - full.float()
        self.q[full] = 0.0
        return self.obs(), r, full.float()


class PolicyAndValue(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc = nn.Linear(2, 48)
        self.actor = nn.Linear(48, 2)
        self.critic = nn.Linear(48, 1)
    def forward(self, x):
        z = F.relu(self.enc(x))
        return self.actor(z), self.critic(z)[:, 0]


net = PolicyAndValue()
opt_shared = torch.optim.Adam([{"params": net.enc.parameters(), "lr": 1e-3}, {"params": net.critic.parameters(), "lr": 2e-3}])
opt_actor = torch.optim.SGD(net.actor.parameters(), lr=0.05)
env = Lights()
o = env.obs()
CHUNKS = 2
for it in range(120):
    opt_shared.zero_grad(); opt_actor.zero_grad()
    rsum = 0.0
    for _ in range(CHUNKS):     # gradients of two rollouts are added up
        traj = []
        for _ in range(6):
            logits, v = net(o)
            lp = F.log_softmax(logits, -1)
            a = torch.multinomial(lp.detach().exp(), 1)
            o, r, d = env.step(a[:, 0])
            traj.append((lp.gather(1, a)[:, 0], v, r, d, -(lp.exp() * lp).sum(1)))
            rsum += r.mean().item()
        with torch.no_grad():
            R = net(o)[1]
        loss = 0.0
        for lp, v, r, d, ent in traj[::-1]:
            R = r + 0.95 * (1 - d) * R
            loss = loss - (lp * (R - v).detach()).mean() + 0.5 * F.mse_loss(v, R) - 0.01 * ent.mean()
        (loss / (CHUNKS * len(traj))).backward()
    opt_actor.step(); opt_shared.step()
    if it % 30 == 29:
        print(it + 1, "reward", rsum / (CHUNKS * 6))
