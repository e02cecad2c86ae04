import argparse
import random
import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn


def parse():
    ap = argparse.ArgumentParser()
    ap.add_argument("--env", default="Acrobot-v1")
    ap.add_argument("--steps", type=int, default=3000)
    ap.add_argument("--sync", type=int, default=250)
    ap.add_argument("--gamma", type=float, default=0.98)
    return ap.parse_args()


class DQN:
    def __init__(self, n_obs, n_act, gamma):
        self.gamma, self.n_act = gamma, n_act
        self.online = nn.Sequential(nn.Linear(n_obs, 64), nn.ReLU(), nn.Linear(64, n_act))
        self.target = self.online  # expect: target-network
        self.optimizer = torch.optim.Adam(self.online.parameters(), lr=1e-3)

    def act(self, obs, eps):
        if random.random() < eps:
            return random.randrange(self.n_act)
        with torch.inference_mode():
            return self.online(torch.as_tensor(obs)).argmax().item()

    def sync(self):
        self.target.load_state_dict(self.online.state_dict())

    def learn(self, batch):
        o, a, r, o2, term = batch
        q = self.online(o).gather(1, a[:, None])[:, 0]
        with torch.no_grad():
            y = r + self.gamma * (1 - term) * self.target(o2).amax(1)
        loss = nn.functional.huber_loss(q, y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()


def main():
    args = parse()
    random.seed(7), torch.manual_seed(7)
    env = gym.make(args.env)
    agent = DQN(env.observation_space.shape[0], int(env.action_space.n), args.gamma)
    memory = []
    obs, _ = env.reset(seed=7)
    for step in range(args.steps):
        act = agent.act(obs, max(0.1, 1 - step / 2000))
        nobs, rew, term, trunc, _ = env.step(act)
        memory.append((obs, act, rew, nobs, term))
        obs = env.reset()[0] if term or trunc else nobs
        if step > 500 and step % 4 == 0:
            o, a, r, o2, d = zip(*random.sample(memory, 32))
            loss = agent.learn((torch.from_numpy(np.stack(o)), torch.tensor(a), torch.tensor(r, dtype=torch.float32),
                                torch.from_numpy(np.stack(o2)), torch.tensor(d, dtype=torch.float32)))
        if step % args.sync == 0:
            agent.sync()
        if step and step % 1000 == 0:
            print(step, "loss", loss)


if __name__ == "__main__":
    main()
