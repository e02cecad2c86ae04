import numpy as np
import torch
import torch.nn as nn
import torch.optim as optim
from torch.distributions import MultivariateNormal

torch.manual_seed(0)
np.random.seed(0)


def f(thetas):
    # mounting correction of the antenna: commanded angles -> mean of the pointing, and its covariance
    tilt = 0.04
    az, el = thetas
    mu = np.array([az + tilt * np.sin(az) * np.cos(el), el + tilt * np.cos(az)])
    S = np.diag([0.08, 0.03])
    return mu, S


class TwoAngles:
    """Point at a hidden source: azimuth in (0, 2 pi), elevation in (0, pi/2)."""

    def __init__(self, horizon=8):
        self.source = np.array([4.2, 0.5])
        self.horizon = horizon

    def reset(self):
        self.t = 0
        self.angles = np.array([np.random.uniform(0, 2 * np.pi), np.random.uniform(0, np.pi / 2)])
        return self.obs()

    def obs(self):
        az, el = self.angles
        return np.array([np.cos(az), np.sin(az), np.cos(el), np.sin(el), self.t / self.horizon])

    def step(self, action):
        self.angles = np.array([action[0] % (2 * np.pi), np.clip(action[1], 0.0, np.pi / 2)])
        self.t += 1
        d_az = np.abs(self.angles[0] - self.source[0])
        d_az = min(d_az, 2 * np.pi - d_az)
        d_el = self.angles[1] - self.source[1]
        return self.obs(), -np.sqrt(d_az ** 2 + d_el ** 2), self.t >= self.horizon


class Agent:
    def __init__(self, n_obs=5, n_hidden=64, lr_actor=1e-3, lr_critic=3e-3, gamma=0.95):
        self.gamma = gamma
        self.ranges = torch.tensor([2 * np.pi, np.pi / 2], dtype=torch.float32)
        self.actor = nn.Sequential(nn.Linear(n_obs, n_hidden), nn.ReLU(), nn.Linear(n_hidden, 2))
        self.critic = nn.Sequential(nn.Linear(n_obs, n_hidden), nn.ReLU(), nn.Linear(n_hidden, 1))
        self.actor_optimizer = optim.Adam(self.actor.parameters(), lr=lr_actor)
        self.critic_optimizer = optim.Adam(self.critic.parameters(), lr=lr_critic)
        self.log_prob = None

    def choose_action(self, state):
        x = torch.FloatTensor(state)
        thetas = torch.sigmoid(self.actor(x)) * self.ranges
        mu, S = f(thetas.detach().numpy())  # expect: graph-cut
        dist = MultivariateNormal(torch.FloatTensor(mu), torch.FloatTensor(S))
        action = dist.sample()
        self.log_prob = dist.log_prob(action)
        return action.numpy()

    def learn(self, state, reward, new_state, done):
        value = self.critic(torch.FloatTensor(state)).squeeze()
        with torch.no_grad():
            new_value = self.critic(torch.FloatTensor(new_state)).squeeze()
        delta = reward + self.gamma * new_value * (1 - int(done)) - value

        actor_loss = -self.log_prob * delta.detach()
        critic_loss = delta ** 2
        self.actor_optimizer.zero_grad()
        self.critic_optimizer.zero_grad()
        (actor_loss + critic_loss).backward()
        self.actor_optimizer.step()
        self.critic_optimizer.step()


env = TwoAngles()
agent = Agent()
scores = []
for episode in range(100):
    state, done, score = env.reset(), False, 0.0
    while not done:
        action = agent.choose_action(state)
        new_state, reward, done = env.step(action)
        agent.learn(state, reward, new_state, done)
        state = new_state
        score += reward
    scores.append(score)
    if (episode + 1) % 20 == 0:
        print("episode", episode + 1, "average score %.2f" % np.mean(scores[-20:]))
