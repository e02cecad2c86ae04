"""One-step actor-critic on CartPole. The agent keeps its networks in a small dict so they can be saved together."""
import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(3)
np.random.seed(3)


def mlp(n_in, n_out, hidden=64):
    return nn.Sequential(nn.Linear(n_in, hidden), nn.Tanh(), nn.Linear(hidden, n_out))


class Agent:
    def __init__(self, obs_dim, n_actions, lr=1e-3, gamma=0.98):
        self.gamma = gamma
        self.nets = {"pi": mlp(obs_dim, n_actions), "v": mlp(obs_dim, 1)}
        params = [p for net in self.nets.values() for p in net.parameters()]
        self.optimizer = torch.optim.Adam(params, lr=lr)

    def _preferences(self, state):
        scores = self.nets["pi"](state).tolist()  # expect: graph-cut
        top = max(scores)
        return [s - top for s in scores]

    def _probabilities(self, state):
        prefs = torch.tensor(self._preferences(state))
        return torch.softmax(prefs, dim=-1)

    def choose_action(self, obs):
        state = torch.as_tensor(obs, dtype=torch.float32)
        with torch.no_grad():
            probs = self._probabilities(state)
        return int(torch.multinomial(probs, 1))

    def _log_prob(self, state, action):
        return torch.log(self._probabilities(state)[action] + 1e-8)

    def _td_target(self, reward, nxt, terminated):
        with torch.no_grad():
            bootstrap = self.nets["v"](nxt).squeeze(-1)
        return reward + self.gamma * bootstrap * (1.0 - float(terminated))

    def learn(self, obs, action, reward, nxt, terminated):
        s = torch.as_tensor(obs, dtype=torch.float32)
        s2 = torch.as_tensor(nxt, dtype=torch.float32)
        value = self.nets["v"](s).squeeze(-1)
        delta = self._td_target(reward, s2, terminated) - value
        actor_loss = -self._log_prob(s, action) * delta.detach()
        critic_loss = F.smooth_l1_loss(value, value.detach() + delta.detach())
        self.optimizer.zero_grad()
        (actor_loss + 0.5 * critic_loss).backward()
        self.optimizer.step()
        return delta.item()


env = gym.make("CartPole-v1")
agent = Agent(env.observation_space.shape[0], env.action_space.n)
scores = []
for episode in range(40):
    obs, _ = env.reset(seed=episode)
    total, over = 0.0, False
    while not over:
        action = agent.choose_action(obs)
        nxt, reward, terminated, truncated, _ = env.step(action)
        agent.learn(obs, action, reward, nxt, terminated)
        obs, total, over = nxt, total + reward, terminated or truncated
    scores.append(total)
    if episode % 10 == 9:
        print(f"episode {episode + 1}: mean score {np.mean(scores[-10:]):.1f}")
