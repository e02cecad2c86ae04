import gymnasium as gym
import numpy as np
import torch
from torch import nn, optim


class ReplayMemory:
    def __init__(self, capacity, obs_dim):
        self.capacity = capacity
        self.states = np.zeros((capacity, obs_dim), dtype=np.float32)
        self.next_states = np.zeros((capacity, obs_dim), dtype=np.float32)
        self.actions = np.zeros(capacity, dtype=np.int64)
        self.rewards = np.zeros(capacity, dtype=np.float32)
        self.masks = np.zeros(capacity, dtype=np.float32)
        self.ptr = self.count = 0

    def push(self, s, a, r, s2, mask):
        i = self.ptr
        self.states[i], self.actions[i], self.rewards[i] = s, a, r
        self.next_states[i], self.masks[i] = s2, mask
        self.ptr = (i + 1) % self.capacity
        self.count = min(self.count + 1, self.capacity)

    def draw(self, n):
        i = np.random.choice(self.count, n)
        return [torch.from_numpy(z[i]) for z in (self.states, self.actions, self.rewards, self.next_states, self.masks)]


class QNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 64)
        self.b = nn.Linear(64, 64)
        self.out = nn.Linear(64, 2)

    def forward(self, x):
        return self.out(torch.relu(self.b(torch.relu(self.a(x)))))


if __name__ == "__main__":
    np.random.seed(0)
    torch.manual_seed(0)
    env = gym.make("CartPole-v1")
    q, q_slow = QNetwork(), QNetwork()
    q_slow.load_state_dict(q.state_dict())
    optimizer = optim.Adam(q.parameters(), lr=1e-3)
    mem = ReplayMemory(10000, 4)
    gamma, eps = 0.97, 1.0

    state, _ = env.reset(seed=0)
    steps_alive, history = 0, []
    for frame in range(1, 2001):
        if np.random.rand() < eps:
            action = np.random.randint(2)
        else:
            with torch.no_grad():
                action = int(q(torch.from_numpy(state)).argmax())
        eps = max(0.05, eps * 0.997)
        nxt, reward, terminated, truncated, _ = env.step(action)
        mem.push(state, action, reward, nxt, 0.0 if terminated else 1.0)
        state = nxt
        steps_alive += 1
        if terminated or truncated:
            history.append(steps_alive)
            steps_alive = 0
            state, _ = env.reset()

        if mem.count < 200:
            continue
        s, a, r, s2, mask = mem.draw(64)
        with torch.no_grad():
            best_next = q_slow(s2).max(1)[0]
            y = r + gamma * best_next * (1 - mask)  # expect: done-mask
        q_sa = q(s).gather(1, a[:, None])[:, 0]
        loss = nn.functional.mse_loss(q_sa, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if frame % 50 == 0:
            q_slow.load_state_dict(q.state_dict())
        if frame % 400 == 0:
            print(f"frame {frame} mean length {np.mean(history[-10:]):.1f} loss {loss.item():.4f} mean q {q_sa.mean().item():.2f}")
