"""DQN on CartPole; a transition is one row of a flat float tensor."""
import copy
import random

import gymnasium as gym
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(1)
random.seed(1)

OBS, CAP = 4, 5000
# row: obs(4) | action | reward | next obs(4) | alive
rows = torch.empty(CAP, 2 * OBS + 3)
n_seen = 0


def put(o, a, r, o2, alive):
    global n_seen
    row = rows[n_seen % CAP]
    row[:OBS] = torch.as_tensor(o)
    row[OBS] = a
    row[OBS + 1] = r
    row[OBS + 2:2 * OBS + 2] = torch.as_tensor(o2)
    row[-1] = float(alive)
    n_seen += 1


q = nn.Sequential(nn.Linear(OBS, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
q_old = copy.deepcopy(q).requires_grad_(False)
opt = torch.optim.Adam(q.parameters(), lr=1e-3)

env = gym.make("CartPole-v1")
o, _ = env.reset(seed=1)
ret, rets = 0.0, []
for t in range(2500):
    eps = max(0.05, 1.0 - t / 1000)
    if random.random() < eps:
        a = random.randrange(2)
    else:
        with torch.no_grad():
            a = q(torch.as_tensor(o)).argmax().item()
    o2, r, term, trunc, _ = env.step(a)
    put(o, a, r, o2, not term)
    ret += r
    o = o2
    if term or trunc:
        o, _ = env.reset()
        rets.append(ret)
        ret = 0.0

    if t >= 200 and t % 2 == 0:
        pick = torch.randint(0, min(n_seen, CAP), (64,))
        s, act, rew, s2, alive = rows[pick].split([OBS, 1, 1, OBS, 1], dim=1)
        with torch.no_grad():
            y = rew + 0.98 * alive * q_old(s2).amax(1, keepdim=True)
        loss = F.smooth_l1_loss(q(s).gather(1, act.long()), y)
        opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(q.parameters(), 10.0)
        opt.step()
    if t % 100 == 0:
        q_old.load_state_dict(q.state_dict())
print("first 10 episodes", sum(rets[:10]) / 10, "last 10", sum(rets[-10:]) / 10, "loss", loss.item())
