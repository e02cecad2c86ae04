import random
import torch
import torch.nn as nn

random.seed(0)
torch.manual_seed(0)

SIZE = 5
GOAL = (4, 4)
MOVES = [(0, 1), (1, 0), (0, -1), (-1, 0)]


def encode(pos):
    v = torch.zeros(2 * SIZE)
    v[pos[0]] = 1.0
    v[SIZE + pos[1]] = 1.0
    return v


def move(pos, k):
    r = min(max(pos[0] + MOVES[k][0], 0), SIZE - 1)
    c = min(max(pos[1] + MOVES[k][1], 0), SIZE - 1)
    return (r, c), (1.0 if (r, c) == GOAL else -0.05), (r, c) == GOAL


policy_net = nn.Sequential(nn.Linear(2 * SIZE, 32), nn.Tanh(), nn.Linear(32, 4), nn.LogSoftmax(dim=-1))
value_net = nn.Sequential(nn.Linear(2 * SIZE, 32), nn.Tanh(), nn.Linear(32, 1))
opt = torch.optim.RMSprop([
    {"params": policy_net.parameters(), "lr": 2e-3},
    {"params": value_net.parameters(), "lr": 5e-3},
])


def play(limit=40):
    pos, done = (0, 0), False
    logps, values, rewards = [], [], []
    while not done and len(rewards) < limit:
        x = encode(pos)
        lp = policy_net(x)
        k = int(torch.multinomial(lp.detach().exp(), 1))
        pos, r, done = move(pos, k)
        logps.append(lp[k])
        values.append(value_net(x)[0])
        rewards.append(r)
    return logps, values, rewards


def discount(rewards, gamma=0.98):
    out, g = [], 0.0
    for r in reversed(rewards):
        g = r + gamma * g
        out.append(g)
    return torch.FloatTensor(out[::-1])


lengths = []
for it in range(80):
    logps, values, rewards = play()
    G = discount(rewards)
    V = torch.stack(values)
    logp = torch.FloatTensor(logps)  # expect: graph-cut
    adv = G - V.detach()
    loss = -(logp * adv).sum() / len(rewards) + nn.functional.mse_loss(V, G)
    opt.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(value_net.parameters(), 5.0)
    opt.step()
    lengths.append(len(rewards))

print("mean length, first 20 episodes:", sum(lengths[:20]) / 20)
print("mean length, last 20 episodes:", sum(lengths[-20:]) / 20)
