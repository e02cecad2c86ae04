import numpy as np
import torch
from torch import nn


class GridBatch:
    """B walkers on an n x n grid, goal in the corner, all in NumPy."""
    MOVES = np.array([[0, 1], [0, -1], [1, 0], [-1, 0]])

    def __init__(self, b=32, n=6, seed=0):
        self.b, self.n = b, n
        self.rng = np.random.default_rng(seed)
        self.pos = self.rng.integers(0, n, (b, 2))

    def obs(self):
        return (self.pos / (self.n - 1) * 2 - 1).astype(np.float32)

    def step(self, act):
        self.pos = np.clip(self.pos + self.MOVES[act], 0, self.n - 1)
        goal = (self.pos == self.n - 1).all(1)
        reward = np.where(goal, 1.0, -0.04).astype(np.float32)
        nxt = self.obs()
        # walkers at the goal start again somewhere else
        k = int(goal.sum())
        if k:
            self.pos[goal] = self.rng.integers(0, self.n - 1, (k, 2))
        return nxt, reward, goal.astype(np.float32)


torch.manual_seed(0)
env = GridBatch()
actor = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 4))
critic = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 1))
actor_optimizer = torch.optim.Adam(actor.parameters(), lr=2e-3)
critic_optimizer = torch.optim.Adam(critic.parameters(), lr=5e-3)
gamma = 0.95

state = torch.from_numpy(env.obs())
reached = []
for step in range(1200):
    policy = torch.distributions.Categorical(logits=actor(state))
    action = policy.sample()
    nxt, reward, goal = env.step(action.numpy())
    reward, goal = torch.from_numpy(reward), torch.from_numpy(goal)
    with torch.no_grad():
        v_next = critic(torch.from_numpy(nxt)).squeeze(-1)
        target = reward + gamma * (1 - goal) * v_next

    td_error = target - critic(state)  # expect: broadcast
    critic_loss = td_error.pow(2).mean()
    critic_optimizer.zero_grad()
    critic_loss.backward()
    critic_optimizer.step()

    actor_loss = -(policy.log_prob(action) * td_error.detach()).mean() - 0.01 * policy.entropy().mean()
    actor_optimizer.zero_grad()
    actor_loss.backward()
    actor_optimizer.step()

    reached.append(goal.sum().item())
    state = torch.from_numpy(env.obs())
    if (step + 1) % 200 == 0:
        print(f"step {step + 1}: goals per step {np.mean(reached[-200:]):.2f}, critic loss {critic_loss.item():.4f}")
