"""DQN with a preallocated torch ring buffer on a grid with a pit."""
import copy

import torch
import torch.nn as nn
import torch.nn.functional as F


class PitGrid:
    def __init__(self, n=5, seed=0):
        self.n, self.g = n, torch.Generator().manual_seed(seed)

    def reset(self):
        self.r, self.c = 0, int(torch.randint(0, self.n - 1, (1,), generator=self.g))
        return self.obs()

    def obs(self):
        x = torch.zeros(2 * self.n)
        x[self.r] = 1.0
        x[self.n + self.c] = 1.0
        return x

    def step(self, a):
        dr, dc = ((0, 1), (1, 0), (0, -1), (-1, 0))[a]
        self.r = min(max(self.r + dr, 0), self.n - 1)
        self.c = min(max(self.c + dc, 0), self.n - 1)
        if (self.r, self.c) == (2, 2):
            return self.obs(), -1.0, True
        if (self.r, self.c) == (self.n - 1, self.n - 1):
            return self.obs(), 1.0, True
        return self.obs(), -0.01, False


class Ring:
    def __init__(self, cap, dim):
        self.data = {
            "obs": torch.zeros(cap, dim), "next_obs": torch.zeros(cap, dim),
            "action": torch.zeros(cap, dtype=torch.long),
            "reward": torch.zeros(cap), "done": torch.zeros(cap, dtype=torch.bool),
        }
        self.cap, self.i, self.full = cap, 0, False

    def add(self, **row):
        for k, v in row.items():
            self.data[k][self.i] = v
        self.i += 1
        if self.i == self.cap:
            self.i, self.full = 0, True

    def __len__(self):
        return self.cap if self.full else self.i

    def sample(self, n):
        idx = torch.randint(0, len(self), (n,))
        return {k: v[idx] for k, v in self.data.items()}


def td_loss(q, q_targ, b, gamma):
    with torch.no_grad():
        nxt = q_targ(b["next_obs"]).amax(dim=1)
        y = torch.where(b["done"], b["reward"] + gamma * nxt, b["reward"])  # expect: done-mask
    pred = q(b["obs"]).gather(1, b["action"].unsqueeze(1)).squeeze(1)
    return F.smooth_l1_loss(pred, y)


def main():
    torch.manual_seed(0)
    env, ring = PitGrid(), Ring(1500, 10)
    q = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 4))
    q_targ = copy.deepcopy(q)
    opt = torch.optim.Adam(q.parameters(), lr=1e-3)
    obs, t, wins = env.reset(), 0, 0
    for step in range(900):
        eps = max(0.1, 1 - step / 600)
        if torch.rand(()) < eps:
            a = int(torch.randint(0, 4, (1,)))
        else:
            with torch.no_grad():
                a = int(q(obs).argmax())
        nxt, r, done = env.step(a)
        ring.add(obs=obs, action=a, reward=r, next_obs=nxt, done=done)
        obs, t = nxt, t + 1
        wins += r == 1.0
        if done or t == 40:
            obs, t = env.reset(), 0
        if len(ring) >= 64:
            loss = td_loss(q, q_targ, ring.sample(32), 0.95)
            opt.zero_grad()
            loss.backward()
            opt.step()
        if step % 50 == 0:
            q_targ.load_state_dict(q.state_dict())
        if step % 300 == 299:
            print(step + 1, "wins", wins, "loss", f"{loss.item():.5f}")
            wins = 0


if __name__ == "__main__":
    main()
