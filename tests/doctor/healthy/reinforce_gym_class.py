import gymnasium as gym
import numpy as np
import torch
from torch import nn, optim
from torch.distributions import Categorical


class PolicyNetwork(nn.Module):
    def __init__(self, n_obs, n_actions, hidden=64):
        super().__init__()
        self.fc1 = nn.Linear(n_obs, hidden)
        self.fc2 = nn.Linear(hidden, n_actions)

    def forward(self, x):
        x = torch.relu(self.fc1(x))
        return torch.softmax(self.fc2(x), dim=-1)


class ReinforceAgent:
    def __init__(self, env, lr=5e-3, gamma=0.99):
        self.env = env
        self.gamma = gamma
        self.policy = PolicyNetwork(env.observation_space.shape[0], env.action_space.n)
        self.optimizer = optim.Adam(self.policy.parameters(), lr=lr)
        self.reset_memory()

    def reset_memory(self):
        self.log_probs = []
        self.rewards = []

    def select_action(self, state):
        state = torch.from_numpy(state).float().unsqueeze(0)
        probs = self.policy(state)
        m = Categorical(probs)
        action = m.sample()
        self.log_probs.append(m.log_prob(action))
        return action.item()

    def discounted_returns(self):
        out = np.zeros(len(self.rewards), dtype=np.float32)
        running = 0.0
        for t in range(len(self.rewards) - 1, -1, -1):
            running = self.rewards[t] + self.gamma * running
            out[t] = running
        return out

    def finish_episode(self):
        returns = torch.tensor(self.discounted_returns())
        returns = (returns - returns.mean()) / (returns.std() + 1e-6)
        log_probs = torch.cat(self.log_probs)
        loss = -(log_probs * returns).sum()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.reset_memory()
        return loss.item()

    def run_episode(self, seed=None):
        state, _ = self.env.reset(seed=seed)
        done = False
        while not done:
            action = self.select_action(state)
            state, reward, terminated, truncated, _ = self.env.step(action)
            self.rewards.append(reward)
            done = terminated or truncated
        return sum(self.rewards)


def main():
    torch.manual_seed(0)
    np.random.seed(0)
    env = gym.make("CartPole-v1")
    agent = ReinforceAgent(env)
    scores = []
    for episode in range(70):
        scores.append(agent.run_episode(seed=episode))
        loss = agent.finish_episode()
        if episode % 14 == 13:
            print(f"Episode {episode + 1}\tmean score {np.mean(scores[-14:]):.1f}\tloss {loss:.3f}")
    env.close()


if __name__ == "__main__":
    main()
