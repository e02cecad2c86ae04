# DQN with bare weight tensors; the target network is just another list of tensors
import math
import random
from collections import deque
import gymnasium as gym
import torch

random.seed(4)
torch.manual_seed(4)


def init_weights(sizes):
    ws = []
    for a, b in zip(sizes[:-1], sizes[1:]):
        w = torch.empty(a, b).uniform_(-1, 1) / math.sqrt(a)
        ws += [w.requires_grad_(), torch.zeros(b, requires_grad=True)]
    return ws


def q_values(ws, x):
    for k in range(0, len(ws), 2):
        x = x @ ws[k] + ws[k + 1]
        if k < len(ws) - 2:
            x = x.relu()
    return x


weights = init_weights([4, 64, 64, 2])
frozen = [w.detach().clone() for w in weights]
opt = torch.optim.Adam(weights, lr=1e-3)
replay = deque(maxlen=5000)
env = gym.make("CartPole-v1")

lengths, t_total = [], 0
for ep in range(90):
    s, _ = env.reset(seed=ep)
    n = 0
    while True:
        t_total += 1
        n += 1
        eps = 0.05 + 0.95 * math.exp(-t_total / 250)
        if random.random() < eps:
            a = random.randint(0, 1)
        else:
            a = int(q_values(weights, torch.from_numpy(s)).detach().argmax())
        s2, r, terminated, truncated, _ = env.step(a)
        replay.append((s.tolist(), a, r, s2.tolist(), terminated))
        s = s2
        if len(replay) > 100:
            S, A, R, S2, D = map(torch.tensor, zip(*random.sample(replay, 64)))
            y = R.float() + 0.98 * (~D) * q_values(frozen, S2).max(dim=1)[0]
            q = q_values(weights, S).gather(1, A.unsqueeze(1)).squeeze(1)
            loss = (q - y).abs().clamp(min=1e-6)
            loss = torch.where(loss < 1, 0.5 * loss ** 2, loss - 0.5).mean()
            opt.zero_grad()
            loss.backward()
            opt.step()
        if t_total % 100 == 0:
            frozen = [w.detach().clone() for w in weights]
        if terminated or truncated:
            break
    lengths.append(n)
    if ep % 10 == 9:
        print(f"episodes {ep + 1}: mean length {sum(lengths[-10:]) / 10:.1f}")
    if t_total > 1400:
        break
print("last mean", sum(lengths[-10:]) / len(lengths[-10:]))
