# Double DQN on a cliff walk; states as one-hot rows, memory is a list of tuples
import random

import torch
import torch.nn as nn

random.seed(0)
torch.manual_seed(0)

ROWS, COLS = 3, 6
START, GOAL = (2, 0), (2, 5)


def step(pos, a):
    dr, dc = [(-1, 0), (1, 0), (0, -1), (0, 1)][a]
    r = min(max(pos[0] + dr, 0), ROWS - 1)
    c = min(max(pos[1] + dc, 0), COLS - 1)
    if r == 2 and 0 < c < 5:
        return (r, c), -5.0, True
    if (r, c) == GOAL:
        return (r, c), 5.0, True
    return (r, c), -0.1, False


def encode(pos):
    v = torch.zeros(ROWS * COLS)
    v[pos[0] * COLS + pos[1]] = 1.0
    return v


def make_net():
    return nn.Sequential(nn.Linear(ROWS * COLS, 48), nn.ReLU(), nn.Linear(48, 4))


online, target_net = make_net(), make_net()
target_net.load_state_dict(online.state_dict())
optimizer = torch.optim.RMSprop(online.parameters(), lr=1e-3)
loss_fn = nn.SmoothL1Loss()

memory = []
pos, ep_reward, history = START, 0.0, []
for t in range(1200):
    epsilon = max(0.1, 1 - t / 700)
    if random.random() < epsilon:
        a = random.randrange(4)
    else:
        with torch.no_grad():
            a = online(encode(pos)).argmax().item()
    nxt, r, done = step(pos, a)
    memory.append((encode(pos), a, r, encode(nxt), done))
    ep_reward += r
    pos = nxt
    if done:
        history.append(ep_reward)
        pos, ep_reward = START, 0.0

    if len(memory) >= 150:
        batch = random.sample(memory, 32)
        s = torch.stack([b[0] for b in batch])
        a_b = torch.tensor([b[1] for b in batch])
        r_b = torch.tensor([b[2] for b in batch])
        s2 = torch.stack([b[3] for b in batch])
        dones = torch.tensor([b[4] for b in batch])
        with torch.no_grad():
            best = online(s2).argmax(dim=1, keepdim=True)
            next_q = target_net(s2).gather(1, best).squeeze(1)
            y = r_b + 0.95 * next_q  # expect: done-mask
        q_val = online(s).gather(1, a_b.unsqueeze(1)).squeeze(1)
        loss = loss_fn(q_val, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if t % 50 == 0:
        target_net.load_state_dict(online.state_dict())
    if t % 300 == 299:
        print(f"t={t} loss={loss.item():.4f} terminal in batch={dones.sum().item()} last returns={history[-5:]}")
