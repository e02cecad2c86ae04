import math
import random
import torch
import torch.nn as nn


class Crane:
    """Trolley on a rail; the goal is drawn anew in every episode, the action is the trolley's velocity."""

    def __init__(self, length=15):
        self.length = length

    def reset(self):
        self.x, self.goal, self.t = random.uniform(-1, 1), random.uniform(-1, 1), 0
        return self.obs()

    def obs(self):
        return torch.tensor([self.x, self.goal, self.x - self.goal])

    def step(self, velocity):
        self.x = min(2.0, max(-2.0, self.x + 0.3 * velocity + random.gauss(0, 0.02)))
        self.t += 1
        return self.obs(), -(self.x - self.goal) ** 2, self.t == self.length


class Driver(nn.Module):
    def __init__(self, sigma=0.4):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 24), nn.Tanh(), nn.Linear(24, 1))
        self.sigma = sigma

    def act(self, obs):
        with torch.no_grad():
            return self.net(obs).item() + random.gauss(0, self.sigma)

    def log_prob(self, obs, actions):
        mean = self.net(obs).squeeze(-1)
        return -0.5 * ((actions - mean) / self.sigma) ** 2 - math.log(self.sigma * math.sqrt(2 * math.pi))


class Learner:
    def __init__(self, driver, lr=1e-2, gamma=0.9):
        self.driver, self.gamma = driver, gamma
        self.optim = torch.optim.Adam(driver.parameters(), lr=lr)
        self.baseline = 0.0

    def improve(self, batch):
        all_obs, all_actions, all_returns = [], [], []
        for obs, actions, rewards in batch:
            g, returns = 0.0, []
            for r in rewards[::-1]:
                g = r + self.gamma * g
                returns.append(g)
            all_obs += obs
            all_actions += actions
            all_returns += returns[::-1]
        returns = torch.tensor(all_returns)
        self.baseline += 0.1 * (returns.mean().item() - self.baseline)
        advantage = returns - self.baseline
        log_prob = self.driver.log_prob(torch.stack(all_obs), torch.tensor(all_actions))
        loss = -(log_prob * advantage).mean()
        loss.backward()
        self.optim.step()  # expect: missing-zero-grad
        return loss.item()


def episode(env, driver):
    obs, done = env.reset(), False
    trace = ([], [], [])
    while not done:
        a = driver.act(obs)
        trace[0].append(obs)
        trace[1].append(a)
        obs, r, done = env.step(a)
        trace[2].append(r)
    return trace


def main():
    torch.manual_seed(2)
    random.seed(2)
    env, driver = Crane(), Driver()
    learner = Learner(driver)
    for it in range(120):
        batch = [episode(env, driver) for _ in range(4)]
        learner.improve(batch)
        if it % 30 == 29:
            print("iteration", it + 1, "mean return %.3f" % (sum(sum(b[2]) for b in batch) / len(batch)))


main()
