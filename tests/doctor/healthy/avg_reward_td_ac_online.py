"""Differential (average reward) actor-critic, continuing access-control task, fully online."""
import random
import torch
from torch import nn

random.seed(9)
torch.manual_seed(9)
SERVERS, PRIO = 6, (1.0, 2.0, 4.0, 8.0)


class AccessControl:
    def __init__(self):
        self.free, self.prio = SERVERS, random.randrange(4)

    def state(self):
        x = [0.0] * 5
        x[0] = 2 * self.free / SERVERS - 1
        x[1 + self.prio] = 1.0
        return torch.tensor(x)

    def step(self, accept):
        r = 0.0
        if accept and self.free:
            self.free -= 1
            r = PRIO[self.prio] / 8
        self.free += sum(random.random() < 0.08 for _ in range(SERVERS - self.free))
        self.prio = random.randrange(4)
        return self.state(), r


body = nn.Sequential(nn.Linear(5, 32), nn.Tanh())
pi_head, v_head = nn.Linear(32, 2), nn.Linear(32, 1)
actor_opt = torch.optim.SGD(pi_head.parameters(), lr=0.05)
critic_opt = torch.optim.SGD([{"params": body.parameters(), "lr": 0.05}, {"params": v_head.parameters()}], lr=0.05)
rbar, env = 0.0, AccessControl()
s, window = env.state(), 0.0
for t in range(1, 5001):
    h = body(s)
    # features are shaped by the critic alone
    logp = torch.log_softmax(pi_head(h.detach()), -1)
    a = torch.distributions.Categorical(logits=logp).sample()
    s2, r = env.step(a.item())
    with torch.no_grad():
        v_next = v_head(body(s2))
    delta = r - rbar + v_next - v_head(h)
    rbar += 0.02 * delta.item()
    actor_opt.zero_grad()
    critic_opt.zero_grad()
    (0.5 * delta.pow(2) - logp[a] * delta.detach()).sum().backward()
    critic_opt.step()
    actor_opt.step()
    s, window = s2, window + r
    if t % 1000 == 0:
        print(f"{t}: reward rate {window / 1000:.3f}, estimate {rbar:.3f}")
        window = 0.0
