"""SVG(0): a stochastic actor follows the critic's gradient, no entropy bonus; point mass on a line."""
import random
import torch
from torch import nn

random.seed(8)
torch.manual_seed(8)


class PointMass:
    limit = 25

    def reset(self):
        self.pos, self.vel, self.t = random.uniform(-1.5, 1.5), random.uniform(-0.5, 0.5), 0
        return (self.pos, self.vel)

    def step(self, force):
        force = min(1.0, max(-1.0, force))
        self.vel += 0.2 * force
        self.pos += 0.2 * self.vel
        self.t += 1
        out = abs(self.pos) > 3
        reward = 0.2 * (1.0 - self.pos ** 2 - 0.1 * self.vel ** 2 - 0.05 * force ** 2) - (2.0 if out else 0.0)
        return (self.pos, self.vel), reward, out, self.t >= self.limit


def net(n_in, n_out):
    return nn.Sequential(nn.Linear(n_in, 32), nn.ELU(), nn.Linear(32, n_out))


mu_net = net(2, 1)
q_net, q_target = net(3, 1), net(3, 1)
q_target.load_state_dict(q_net.state_dict())
mu_opt = torch.optim.Adam(mu_net.parameters(), lr=1e-3)
q_opt = torch.optim.Adam(q_net.parameters(), lr=3e-3)
transitions = []


def policy(states):
    return torch.distributions.Normal(torch.tanh(mu_net(states)), 0.3)


def q(f, s, a):
    return f(torch.cat((s, a), dim=1))


def update():
    batch = random.sample(transitions, 64)
    s, a, r, s2, out = [torch.tensor(c, dtype=torch.float32) for c in zip(*batch)]
    a, r, out = a.view(-1, 1), r.view(-1, 1), out.view(-1, 1)
    with torch.no_grad():
        target = r + 0.95 * (1 - out) * q(q_target, s2, policy(s2).sample())
    q_loss = (q(q_net, s, a) - target).square().mean()
    q_opt.zero_grad()
    q_loss.backward()
    q_opt.step()

    actions = policy(s).sample()  # expect: sample-not-rsample
    mu_loss = -q(q_net, s, actions).mean()
    mu_opt.zero_grad()
    mu_loss.backward()
    mu_opt.step()

    for p, pt in zip(q_net.parameters(), q_target.parameters()):
        pt.data.copy_(0.98 * pt.data + 0.02 * p.data)
    return q_loss.item()


env = PointMass()
for episode in range(40):
    s, total = env.reset(), 0.0
    while True:
        with torch.no_grad():
            a = policy(torch.tensor([s])).sample().item()
        s2, r, out, timeout = env.step(a)
        transitions.append((s, a, r, s2, float(out)))
        total += r
        s = s2
        if len(transitions) > 100:
            loss = update()
        if out or timeout:
            break
    if episode % 10 == 9:
        print("episode", episode + 1, "return %.2f" % total, "q loss %.4f" % loss)
