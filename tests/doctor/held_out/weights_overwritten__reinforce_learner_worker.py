"""REINFORCE with a worker that plays and a learner that trains (like in distributed RL, but in one process)."""
import gymnasium as gym
import torch
import torch.nn as nn
import torch.nn.functional as F


def make_policy():
    return nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))


class Worker:
    def __init__(self, policy, seed):
        self.policy = policy
        self.env = gym.make("CartPole-v1")
        self.seed = seed

    @torch.no_grad()
    def play(self):
        self.seed += 1
        obs, _ = self.env.reset(seed=self.seed)
        traj = []
        while True:
            x = torch.as_tensor(obs)
            a = torch.multinomial(F.softmax(self.policy(x), dim=-1), 1).item()
            obs, r, terminated, truncated, _ = self.env.step(a)
            traj.append((x, a, r))
            if terminated or truncated:
                return traj


class Learner:
    def __init__(self, policy, lr=5e-3, gamma=0.98):
        self.policy, self.gamma = policy, gamma
        self.opt = torch.optim.Adam(policy.parameters(), lr=lr)

    def learn(self, trajs):
        xs, acts, gs = [], [], []
        for traj in trajs:
            g, tmp = 0.0, []
            for x, a, r in reversed(traj):
                g = r + self.gamma * g
                tmp.append(g)
                xs.append(x)
                acts.append(a)
            gs += tmp
        xs, acts, gs = torch.stack(xs), torch.tensor(acts), torch.tensor(gs)
        gs = (gs - gs.mean()) / (gs.std() + 1e-8)
        logp = F.log_softmax(self.policy(xs), dim=-1)[torch.arange(len(acts)), acts]
        loss = -(logp * gs).mean()
        self.opt.zero_grad()
        loss.backward()
        self.opt.step()
        return loss.item()


torch.manual_seed(1)
learner_net, worker_net = make_policy(), make_policy()
worker_net.load_state_dict(learner_net.state_dict())
worker, learner = Worker(worker_net, seed=100), Learner(learner_net)

for it in range(60):
    trajs = [worker.play() for _ in range(3)]
    loss = learner.learn(trajs)
    # hand the fresh weights over for the next round
    learner_net.load_state_dict(worker_net.state_dict())  # expect: weights-overwritten
    if it % 10 == 9:
        print(f"iteration {it + 1}: length {sum(map(len, trajs)) / 3:.1f} loss {loss:.4f}")
