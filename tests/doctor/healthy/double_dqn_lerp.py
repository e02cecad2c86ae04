import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn


class Dueling(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        self.adv = nn.Linear(64, 2)
        self.val = nn.Linear(64, 1)

    def forward(self, x):
        h = self.body(x)
        a = self.adv(h)
        return self.val(h) + a - a.mean(dim=1, keepdim=True)


class Memory:
    def __init__(self, cap=5000):
        self.s = np.zeros((cap, 4), np.float32)
        self.s2 = np.zeros((cap, 4), np.float32)
        self.a = np.zeros(cap, np.int64)
        self.r = np.zeros(cap, np.float32)
        self.d = np.zeros(cap, np.bool_)
        self.n, self.cap = 0, cap

    def push(self, s, a, r, s2, d):
        k = self.n % self.cap
        self.s[k], self.a[k], self.r[k], self.s2[k], self.d[k] = s, a, r, s2, d
        self.n += 1

    def batch(self, size, rng):
        k = rng.integers(0, min(self.n, self.cap), size)
        return [torch.from_numpy(x[k]) for x in (self.s, self.a, self.r, self.s2, self.d)]


def learn(online, target, opt, batch, gamma):
    s, a, r, s2, d = batch
    q = online(s)[torch.arange(len(a)), a]
    with torch.no_grad():
        best = online(s2).argmax(dim=1, keepdim=True)        # online net chooses
        q_next = target(s2).gather(1, best).squeeze(1)       # target net judges
        y = torch.where(d, r, r + gamma * q_next)
    loss = nn.functional.huber_loss(q, y)
    opt.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_value_(online.parameters(), 10.0)
    opt.step()
    return loss.item(), q.mean().item()


def main(steps=2400, seed=1):
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    env = gym.make("CartPole-v1")
    online, target = Dueling(), Dueling()
    target.load_state_dict(online.state_dict())
    target.requires_grad_(False)
    opt = torch.optim.AdamW(online.parameters(), lr=2e-3, amsgrad=True)
    mem, scores, score = Memory(), [], 0.0
    s, _ = env.reset(seed=seed)
    for t in range(steps):
        eps = max(0.05, 1.0 - t / 1000)
        if rng.random() < eps:
            a = int(rng.integers(2))
        else:
            with torch.no_grad():
                a = int(online(torch.from_numpy(s)[None]).argmax())
        s2, r, terminated, truncated, _ = env.step(a)
        score += r
        mem.push(s, a, r, s2, terminated)
        s = s2
        if terminated or truncated:
            s, _ = env.reset()
            scores.append(score)
            score = 0.0
        if t > 200 and t % 3 == 0:
            loss, q = learn(online, target, opt, mem.batch(64, rng), 0.97)
            with torch.no_grad():
                for p, p_t in zip(online.parameters(), target.parameters()):
                    p_t.lerp_(p, 0.02)
        if t % 600 == 599:
            print(f"t {t + 1} score {np.mean(scores[-10:]):.1f} loss {loss:.4f} q {q:.2f} eps {eps:.2f}")
    env.close()


if __name__ == "__main__":
    main()
