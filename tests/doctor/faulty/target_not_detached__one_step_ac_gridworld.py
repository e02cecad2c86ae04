import torch
import torch.nn as nn
import torch.optim as optim
import numpy as np

torch.manual_seed(1)
np.random.seed(1)


class CliffGrid:
    H, W = 3, 6

    def reset(self):
        self.y, self.x = 2, 0
        self.steps = 0
        return self.encode()

    def encode(self):
        z = np.zeros(self.H * self.W, dtype=np.float32)
        z[self.y * self.W + self.x] = 1
        return z

    def step(self, a):
        self.steps += 1
        dy, dx = [(-1, 0), (1, 0), (0, -1), (0, 1)][a]
        self.y = min(max(self.y + dy, 0), self.H - 1)
        self.x = min(max(self.x + dx, 0), self.W - 1)
        if self.y == 2 and 0 < self.x < self.W - 1:
            return self.encode(), -1.0, True
        if self.y == 2 and self.x == self.W - 1:
            return self.encode(), 1.0, True
        return self.encode(), -0.01, False


class Net(nn.Module):
    def __init__(self, n_in, n_out):
        super().__init__()
        self.fc1 = nn.Linear(n_in, 32)
        self.fc2 = nn.Linear(32, n_out)

    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(x)))


class OneStepAC:
    def __init__(self, n_states, n_actions, gamma=0.95):
        self.pi = Net(n_states, n_actions)
        self.v = Net(n_states, 1)
        self.opt_pi = optim.Adam(self.pi.parameters(), lr=2e-3)
        self.opt_v = optim.Adam(self.v.parameters(), lr=5e-3)
        self.gamma = gamma

    def act(self, s):
        with torch.no_grad():
            probs = torch.softmax(self.pi(s), -1)
        return torch.multinomial(probs, 1).item()

    def update(self, s, a, r, s2, terminal):
        v = self.v(s)
        td_target = r + self.gamma * self.v(s2) * (0.0 if terminal else 1.0)  # expect: target-not-detached
        delta = td_target - v

        v_loss = delta.pow(2).mean()
        self.opt_v.zero_grad()
        v_loss.backward()
        self.opt_v.step()

        logp = torch.log_softmax(self.pi(s), -1)
        ent = -(logp.exp() * logp).sum()
        pi_loss = -(logp[a] * delta.detach()).mean() - 0.01 * ent
        self.opt_pi.zero_grad()
        pi_loss.backward()
        self.opt_pi.step()
        return delta.item()


env = CliffGrid()
agent = OneStepAC(env.H * env.W, 4)
totals = []
for ep in range(80):
    s = torch.from_numpy(env.reset())
    total, terminal = 0.0, False
    while not terminal and env.steps < 40:
        a = agent.act(s)
        s2, r, terminal = env.step(a)
        s2 = torch.from_numpy(s2)
        agent.update(s, a, r, s2, terminal)
        total += r
        s = s2
    totals.append(total)
    if (ep + 1) % 20 == 0:
        with torch.no_grad():
            v0 = agent.v(torch.from_numpy(env.reset())).item()
        print("episode", ep + 1, "avg return %.3f" % np.mean(totals[-20:]), "V(start) %.3f" % v0)
