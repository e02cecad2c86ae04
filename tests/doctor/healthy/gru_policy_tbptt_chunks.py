"""
Recurrent actor-critic on a memory task that never ends: at each tick a symbol is shown, and the right action is the
symbol that was shown two ticks before. The hidden state is carried over from chunk to chunk, its graph is not.
"""
import numpy as np
import torch
import torch.nn as nn
from torch.distributions import Categorical

SYMBOLS, DELAY, ENVS, CHUNK, CHUNKS = 3, 2, 32, 8, 160


class EchoTask:
    def __init__(self, n, seed):
        self.rng = np.random.default_rng(seed)
        self.past = self.rng.integers(0, SYMBOLS, size=(DELAY + 1, n))

    def observation(self):
        return np.eye(SYMBOLS, dtype=np.float32)[self.past[-1]]

    def step(self, action):
        reward = (action == self.past[0]).astype(np.float32)
        fresh = self.rng.integers(0, SYMBOLS, size=(1, self.past.shape[1]))
        self.past = np.concatenate([self.past[1:], fresh])
        return self.observation(), reward


class RecurrentPolicy(nn.Module):
    def __init__(self, hidden=48):
        super().__init__()
        self.cell = nn.GRUCell(SYMBOLS, hidden)
        self.pi = nn.Linear(hidden, SYMBOLS)
        self.v = nn.Linear(hidden, 1)

    def forward(self, x, h):
        h = self.cell(x, h)
        return Categorical(logits=self.pi(h)), self.v(h).squeeze(1), h


torch.manual_seed(6)
task = EchoTask(ENVS, 6)
net = RecurrentPolicy()
optimizer = torch.optim.Adam(net.parameters(), lr=6e-3)
gamma = 0.5
h = torch.zeros(ENVS, 48)
x = torch.from_numpy(task.observation())
score = []

for chunk in range(CHUNKS):
    h = h.detach()
    log_probs, values, rewards, entropy = [], [], [], 0.0
    for _ in range(CHUNK):
        dist, value, h = net(x, h)
        action = dist.sample()
        obs, reward = task.step(action.numpy())
        x = torch.from_numpy(obs)
        log_probs.append(dist.log_prob(action))
        values.append(value)
        rewards.append(torch.from_numpy(reward))
        entropy = entropy + dist.entropy().mean() / CHUNK
    with torch.no_grad():
        _, R, _ = net(x, h)

    actor_loss, critic_loss = 0.0, 0.0
    for t in reversed(range(CHUNK)):
        R = rewards[t] + gamma * R
        advantage = R - values[t]
        actor_loss = actor_loss - (log_probs[t] * advantage.detach()).mean() / CHUNK
        critic_loss = critic_loss + advantage.pow(2).mean() / CHUNK
    loss = actor_loss + 0.5 * critic_loss - 0.01 * entropy
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    optimizer.step()

    score.append(torch.stack(rewards).mean().item())
    if (chunk + 1) % 40 == 0:
        print(f"chunk {chunk + 1}: hits {np.mean(score[-20:]):.3f} critic {critic_loss.item():.4f} H {entropy.item():.3f}")
