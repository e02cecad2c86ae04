import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(109)
np.random.seed(109)


class PrioritisedBuffer:
    def __init__(self, size):
        self.rows, self.prio, self.size = [], np.zeros(size), size

    def push(self, row):
        i = len(self.rows)
        self.rows.append(row)
        self.prio[i] = self.prio[:i].max() if i else 1.0

    def sample(self, k):
        p = self.prio[:len(self.rows)] ** 0.6
        p /= p.sum()
        idx = np.random.choice(len(self.rows), k, p=p)
        w = (len(self.rows) * p[idx]) ** -0.4
        s, a, r, s2, d = (torch.from_numpy(np.array(c)) for c in zip(*(self.rows[i] for i in idx)))
        return idx, torch.from_numpy(w / w.max()).float(), s, a, r.float(), s2, d.float()

    def update(self, idx, td):
        self.prio[idx] = np.abs(td) + 1e-3


class Agent:
    class Dueling(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(4, 64), nn.ReLU())
            self.v, self.a = nn.Linear(64, 1), nn.Linear(64, 2)

        def forward(self, x):
            h = self.body(x)
            a = self.a(h)
            return self.v(h) + a - a.mean(-1, keepdim=True)

    def __init__(self):
        self.nets = (Agent.Dueling(), Agent.Dueling())
        self.nets[1].load_state_dict(self.nets[0].state_dict())
        for p in self.nets[1].parameters():
            p.requires_grad = False
        self.opt = torch.optim.Adam(self.nets[0].parameters(), lr=1e-3)
        self.buf = PrioritisedBuffer(2000)

    @torch.inference_mode()
    def choose_action(self, obs, eps):
        if np.random.rand() < eps:
            return np.random.randint(2)
        return int(self.nets[0](torch.from_numpy(obs)).argmax())

    def _td(self, s, a, r, s2, d):
        online, target = self.nets
        q = online(s).gather(1, a[:, None])[:, 0]
        best = online(s2).detach().argmax(1, keepdim=True)
        y = r + 0.98 * (1 - d) * target(s2).gather(1, best)[:, 0]
        return y - q

    def learn(self):
        idx, w, *batch = self.buf.sample(32)
        td = self._td(*batch)
        loss = (w * F.huber_loss(td, torch.zeros_like(td), reduction="none")).mean()
        self.opt.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_value_(self.nets[0].parameters(), 1.0)
        self.opt.step()
        self.buf.update(idx, td.detach().numpy())
        with torch.no_grad():
            for p, t in zip(self.nets[0].parameters(), self.nets[1].parameters()):
                t.copy_(0.02 * p + 0.98 * t)
        return loss.item()


env, agent = gym.make("CartPole-v1"), Agent()
obs, _ = env.reset(seed=109)
n, lengths = 0, []
for t in range(900):
    a = agent.choose_action(obs, max(0.05, 1 - t / 500))
    nxt, r, terminated, truncated, _ = env.step(a)
    agent.buf.push((obs, a, r, nxt, terminated))
    obs, n = nxt, n + 1
    if terminated or truncated:
        lengths.append(n)
        n, (obs, _) = 0, env.reset()
    if t > 100:
        loss = agent.learn()
        if t % 200 == 0:
            print(t, loss, np.mean(lengths[-10:]))
