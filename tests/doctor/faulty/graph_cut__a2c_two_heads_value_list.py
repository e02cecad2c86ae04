# A2C (monte carlo returns), CartPole, one network with two heads
import gymnasium as gym
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.distributions import Categorical

torch.manual_seed(0)
env = gym.make('CartPole-v1')
gamma = 0.99


class ActorCritic(nn.Module):
    def __init__(self):
        super().__init__()
        self.affine1 = nn.Linear(4, 128)
        self.action_head = nn.Linear(128, 2)
        self.value_head = nn.Linear(128, 1)

    def forward(self, x):
        x = F.relu(self.affine1(x))
        return F.softmax(self.action_head(x), dim=-1), self.value_head(x)


model = ActorCritic()
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
running = 10.0

for i_episode in range(60):
    state, _ = env.reset(seed=i_episode)
    saved_log_probs, saved_values, rewards = [], [], []
    for t in range(500):
        probs, value = model(torch.from_numpy(state))
        m = Categorical(probs)
        action = m.sample()
        saved_log_probs.append(m.log_prob(action))
        saved_values.append(value.squeeze())
        state, reward, terminated, truncated, _ = env.step(action.item())
        rewards.append(float(reward))
        if terminated or truncated:
            break

    # discounted returns
    R = 0.0
    returns = []
    for r in rewards[::-1]:
        R = r + gamma * R
        returns.insert(0, R)
    returns = torch.tensor(returns)
    returns = (returns - returns.mean()) / (returns.std() + 1e-6)

    log_probs = torch.stack(saved_log_probs)
    values = torch.tensor(saved_values)  # expect: graph-cut

    advantage = returns - values.detach()
    policy_loss = -(log_probs * advantage).sum()
    value_loss = F.smooth_l1_loss(values, returns, reduction='sum')
    loss = policy_loss + value_loss

    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

    running = 0.05 * sum(rewards) + 0.95 * running
    if i_episode % 10 == 0:
        print('Episode {}\tLast reward: {:.2f}\tAverage: {:.2f}\tvalue loss {:.3f}'.format(
            i_episode, sum(rewards), running, value_loss.item()))
