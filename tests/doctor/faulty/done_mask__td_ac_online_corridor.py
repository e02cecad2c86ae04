"""One-step actor-critic, updated after each transition, corridor with a cliff on the left and a prize on the right."""
import random
import torch
import torch.nn as nn

LENGTH = 9
random.seed(17)
torch.manual_seed(17)


def reset():
    return random.randint(2, LENGTH - 3)


def step(pos, right):
    pos += 1 if right else -1
    if pos == LENGTH - 1:
        return pos, 1.0, True
    if pos == 0:
        return pos, -1.0, True
    return pos, -0.02, False


def enc(pos):
    v = torch.zeros(LENGTH)
    v[pos] = 1.0
    return v


hidden = 32
actor = nn.Sequential(nn.Linear(LENGTH, hidden), nn.Tanh(), nn.Linear(hidden, 2))
critic = nn.Sequential(nn.Linear(LENGTH, hidden), nn.Tanh(), nn.Linear(hidden, 1))
opt_a = torch.optim.Adam(actor.parameters(), lr=1e-3)
opt_c = torch.optim.Adam(critic.parameters(), lr=5e-3)
gamma = 0.95

wins = 0
for episode in range(260):
    s = reset()
    finished, n = False, 0
    while not finished and n < 60:
        x = enc(s)
        probs = torch.softmax(actor(x), -1)
        a = torch.multinomial(probs, 1).item()
        s2, r, finished = step(s, a == 1)

        v = critic(x)
        with torch.no_grad():
            v2 = critic(enc(s2))
        td = r + gamma * v2 - v  # expect: done-mask
        opt_c.zero_grad()
        (td ** 2).sum().backward()
        opt_c.step()

        opt_a.zero_grad()
        (-torch.log(probs[a]) * td.detach()).sum().backward()
        opt_a.step()
        s, n = s2, n + 1
    wins += s == LENGTH - 1
    if episode % 65 == 64:
        print(f"episode {episode + 1}: {wins}/65 reached the prize")
        wins = 0
