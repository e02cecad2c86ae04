import copy
from collections import deque
from random import Random

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn

device = torch.device("cpu")


class DoubleQ(nn.Module):
    def __init__(self, hidden=64):
        super().__init__()
        self.one = nn.Sequential(nn.Linear(3, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        self.two = nn.Sequential(nn.Linear(3, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, obs, act):
        z = torch.cat((obs, act), dim=-1)
        return self.one(z), self.two(z)


class TD3Agent:
    def __init__(self, gamma=0.98, polyak=0.99, policy_delay=2):
        self.pi = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1), nn.Tanh()).to(device)
        self.q = DoubleQ().to(device)
        self.pi_targ = copy.deepcopy(self.pi)
        self.q_targ = copy.copy(self.q)  # expect: target-network
        self.pi_opt = torch.optim.Adam(self.pi.parameters(), lr=1e-3)
        self.q_opt = torch.optim.Adam(self.q.parameters(), lr=1e-3)
        self.gamma, self.polyak, self.policy_delay = gamma, polyak, policy_delay
        self.calls = 0

    def select(self, obs, sigma):
        with torch.no_grad():
            a = self.pi(torch.as_tensor(obs, device=device))
        return (a + sigma * torch.randn_like(a)).clamp(-1, 1).cpu().numpy()

    def soft_update(self, net, targ):
        with torch.no_grad():
            for p, p_targ in zip(net.parameters(), targ.parameters()):
                p_targ.mul_(self.polyak)
                p_targ.add_((1 - self.polyak) * p)

    def update(self, obs, act, rew, nxt, term):
        self.calls += 1
        with torch.no_grad():
            smooth = (0.2 * torch.randn_like(act)).clamp(-0.5, 0.5)
            nxt_act = (self.pi_targ(nxt) + smooth).clamp(-1, 1)
            backup = rew + self.gamma * (1 - term) * torch.min(*self.q_targ(nxt, nxt_act))
        q1, q2 = self.q(obs, act)
        loss_q = ((q1 - backup) ** 2).mean() + ((q2 - backup) ** 2).mean()
        self.q_opt.zero_grad()
        loss_q.backward()
        self.q_opt.step()
        if self.calls % self.policy_delay == 0:
            for p in self.q.parameters():
                p.requires_grad = False
            loss_pi = -self.q(obs, self.pi(obs))[0].mean()
            self.pi_opt.zero_grad()
            loss_pi.backward()
            self.pi_opt.step()
            for p in self.q.parameters():
                p.requires_grad = True
            self.soft_update(self.pi, self.pi_targ)
            self.soft_update(self.q, self.q_targ)
        return loss_q.item()


def main():
    torch.manual_seed(14)
    rnd = Random(14)
    env = gym.make("MountainCarContinuous-v0", max_episode_steps=200)
    agent, mem = TD3Agent(), deque(maxlen=10_000)
    obs, _ = env.reset(seed=14)
    score, losses = 0.0, []
    for t in range(1000):
        a = agent.select(obs, sigma=0.5 if t > 200 else 2.0)
        nxt, rew, term, trunc, _ = env.step(a)
        rew = float(rew) + 50.0 * abs(float(nxt[1]))
        mem.append((obs, a, [rew], nxt, [float(term)]))
        obs, score = nxt, score + rew
        if t > 200:
            batch = [torch.tensor(np.array(x), dtype=torch.float32, device=device) for x in zip(*rnd.sample(mem, 64))]
            losses.append(agent.update(*batch))
        if term or trunc:
            print(f"t {t} score {score:.1f} q loss {np.mean(losses[-100:]) if losses else 0:.4f}")
            obs, _ = env.reset()
            score = 0.0


if __name__ == "__main__":
    main()
