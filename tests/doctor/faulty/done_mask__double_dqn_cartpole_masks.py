import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


class ReplayBuffer(object):
    def __init__(self, state_dim, max_size=int(1e4)):
        self.max_size = max_size
        self.ptr = 0
        self.size = 0
        self.state = np.zeros((max_size, state_dim), dtype=np.float32)
        self.action = np.zeros((max_size, 1), dtype=np.int64)
        self.next_state = np.zeros((max_size, state_dim), dtype=np.float32)
        self.reward = np.zeros((max_size, 1), dtype=np.float32)
        self.mask = np.zeros((max_size, 1), dtype=np.float32)

    def add(self, state, action, next_state, reward, terminated):
        self.state[self.ptr] = state
        self.action[self.ptr] = action
        self.next_state[self.ptr] = next_state
        self.reward[self.ptr] = reward
        self.mask[self.ptr] = 1. - float(terminated)
        self.ptr = (self.ptr + 1) % self.max_size
        self.size = min(self.size + 1, self.max_size)

    def sample(self, batch_size):
        ind = np.random.randint(0, self.size, size=batch_size)
        return (torch.FloatTensor(self.state[ind]), torch.LongTensor(self.action[ind]),
                torch.FloatTensor(self.next_state[ind]), torch.FloatTensor(self.reward[ind]),
                torch.FloatTensor(self.mask[ind]))


class QNetwork(nn.Module):
    def __init__(self):
        super(QNetwork, self).__init__()
        self.fc1 = nn.Linear(4, 64)
        self.fc2 = nn.Linear(64, 64)
        self.fc3 = nn.Linear(64, 2)

    def forward(self, x):
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc3(x)


class DDQN(object):
    def __init__(self, discount=0.99, tau=0.01):
        self.q = QNetwork()
        self.q_target = QNetwork()
        self.q_target.load_state_dict(self.q.state_dict())
        self.optimizer = torch.optim.Adam(self.q.parameters(), lr=1e-3)
        self.discount = discount
        self.tau = tau

    def select_action(self, state, eps):
        if np.random.rand() < eps:
            return np.random.randint(2)
        with torch.no_grad():
            return int(self.q(torch.FloatTensor(state).unsqueeze(0)).argmax(1))

    def train(self, replay_buffer, batch_size=64):
        state, action, next_state, reward, mask = replay_buffer.sample(batch_size)
        with torch.no_grad():
            best = self.q(next_state).argmax(1, keepdim=True)
            next_q = self.q_target(next_state).gather(1, best)
            target_q = reward + (1 - mask) * self.discount * next_q  # expect: done-mask
        current_q = self.q(state).gather(1, action)
        loss = F.smooth_l1_loss(current_q, target_q)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        for p, tp in zip(self.q.parameters(), self.q_target.parameters()):
            tp.data.copy_(self.tau * p.data + (1 - self.tau) * tp.data)
        return current_q.mean().item()


if __name__ == "__main__":
    np.random.seed(1)
    torch.manual_seed(1)
    env = gym.make("CartPole-v1")
    agent, rb = DDQN(), ReplayBuffer(4)
    state, _ = env.reset(seed=1)
    ep_len, lens, q_mean = 0, [], 0.0
    for t in range(900):
        eps = max(0.05, 1 - t / 600)
        action = agent.select_action(state, eps)
        next_state, reward, terminated, truncated, _ = env.step(action)
        rb.add(state, action, next_state, reward, terminated)
        state = next_state
        ep_len += 1
        if terminated or truncated:
            lens.append(ep_len)
            ep_len = 0
            state, _ = env.reset()
        if t > 100:
            q_mean = agent.train(rb)
        if t % 150 == 149:
            print("t", t + 1, "episode length", np.mean(lens[-8:]), "mean Q", round(q_mean, 3))
