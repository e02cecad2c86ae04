import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(42)


class ActorCritic(nn.Module):
    def __init__(self):
        super(ActorCritic, self).__init__()
        self.a1 = nn.Linear(4, 64)
        self.a2 = nn.Linear(64, 2)
        self.c1 = nn.Linear(4, 64)
        self.c2 = nn.Linear(64, 1)

    def forward(self, x):
        probs = F.softmax(self.a2(F.relu(self.a1(x))), dim=-1)
        value = self.c2(F.relu(self.c1(x)))
        return probs, value


env = gym.make("CartPole-v1")
model = ActorCritic()
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
gamma = 0.99
history = []

for episode in range(60):
    state, _ = env.reset(seed=episode)
    log_probs, values, rewards = [], [], []
    for t in range(200):
        probs, value = model(torch.from_numpy(state))
        m = torch.distributions.Categorical(probs)
        action = m.sample()
        state, reward, terminated, truncated, _ = env.step(action.item())
        log_probs.append(m.log_prob(action).item())  # expect: graph-cut
        values.append(value.squeeze())
        rewards.append(reward)
        if terminated or truncated:
            break

    returns = []
    R = 0
    for r in rewards[::-1]:
        R = r + gamma * R
        returns.append(R)
    returns = torch.tensor(returns[::-1])
    log_probs = torch.tensor(log_probs)
    values = torch.stack(values)

    advantage = returns - values.detach()
    policy_loss = -(log_probs * advantage).mean()
    value_loss = F.smooth_l1_loss(values, returns)
    loss = policy_loss + 0.5 * value_loss

    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

    history.append(sum(rewards))
    if episode % 20 == 0:
        print("Episode {}\tloss {:.3f}\taverage length {:.1f}".format(episode, loss.item(), np.mean(history[-20:])))
