"""DQN with a replay deque, hard target copies and a novelty bonus (random network distillation) on a long chain."""
import copy
import random
from collections import deque

import torch
import torch.nn as nn
import torch.nn.functional as F

random.seed(0)
torch.manual_seed(0)

LENGTH = 8
GAMMA = 0.9
COPY_EVERY = 100


class Chain:
    """Only the far right end pays, and it ends the episode; at cell 0 there is a wall."""

    def reset(self):
        self.pos, self.t = 1, 0
        return self.features()

    def features(self):
        x = torch.zeros(LENGTH)
        x[: self.pos + 1] = 1.0
        return x

    def step(self, a):
        self.pos = max(0, self.pos + (1 if a == 1 else -1))
        self.t += 1
        if self.pos == LENGTH - 1:
            return self.features(), 1.0, True, False
        return self.features(), 0.0, False, self.t >= 30


def mlp(sizes):
    layers = []
    for i in range(len(sizes) - 1):
        layers += [nn.Linear(sizes[i], sizes[i + 1]), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


q = mlp([LENGTH, 48, 48, 2])
q_target = copy.deepcopy(q)
opt = torch.optim.Adam(q.parameters(), lr=5e-3)

rnd_fixed = mlp([LENGTH, 32, 8])          # stays random for ever: its outputs are what the predictor learns
for p in rnd_fixed.parameters():
    p.requires_grad_(False)
rnd_predictor = mlp([LENGTH, 32, 8])
rnd_opt = torch.optim.Adam(rnd_predictor.parameters(), lr=1e-3)

memory = deque(maxlen=5000)
env = Chain()
updates, bonus_scale, finished = 0, 1.0, deque(maxlen=15)
for episode in range(75):
    s = env.reset()
    total = 0.0
    while True:
        if random.random() < max(0.1, 0.8 - episode / 40):
            a = random.randrange(2)
        else:
            with torch.no_grad():
                a = q(s).argmax().item()
        s2, r, terminated, truncated = env.step(a)
        total += r
        memory.append((s, a, r, s2, terminated))
        s = s2

        if len(memory) >= 64 and len(memory) % 2 == 0:
            batch = random.sample(memory, 48)
            states, actions, rewards, next_states, terms = zip(*batch)
            states, next_states = torch.stack(states), torch.stack(next_states)
            actions = torch.tensor(actions).unsqueeze(1)
            rewards = torch.tensor(rewards)
            not_done = 1.0 - torch.tensor(terms, dtype=torch.float32)

            error = (rnd_predictor(next_states) - rnd_fixed(next_states)).pow(2).mean(dim=1)
            rnd_opt.zero_grad()
            error.mean().backward()
            rnd_opt.step()
            bonus_scale = 0.99 * bonus_scale + 0.01 * error.mean().item()
            rewards = rewards + 0.02 * error.detach() / bonus_scale

            with torch.no_grad():
                y = rewards + GAMMA * not_done * q_target(next_states).max(dim=1).values
            q_sa = q(states).gather(1, actions).squeeze(1)
            loss = F.smooth_l1_loss(q_sa, y)
            opt.zero_grad()
            loss.backward()
            opt.step()

            updates += 1
            if updates % COPY_EVERY == 0:
                q_target.load_state_dict(q.state_dict())
        if terminated or truncated:
            break
    finished.append(total)
    if episode % 15 == 14:
        print(f"ep {episode + 1} mean return {sum(finished) / len(finished):.3f} updates {updates} "
              f"bonus {error.mean().item():.4f} loss {loss.item():.5f}")
