import argparse

import gymnasium as gym
import torch
import torch.nn as nn
from torch.distributions.categorical import Categorical


class ActorCritic(nn.Module):
    def __init__(self, n_obs, n_act):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(n_obs, 64), nn.Tanh())
        self.pi = nn.Linear(64, n_act)
        self.v = nn.Linear(64, 1)

    def forward(self, x):
        h = self.body(x)
        return Categorical(logits=self.pi(h)), self.v(h)


def discount(rewards, gamma):
    out, g = [], 0.0
    for r in rewards[::-1]:
        g = r + gamma * g
        out.append(g)
    return torch.tensor(out[::-1], dtype=torch.float32)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--episodes", type=int, default=45)
    parser.add_argument("--gamma", type=float, default=0.97)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--vf-coef", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=9)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    env = gym.make("CartPole-v1")
    net = ActorCritic(4, 2)
    opt = torch.optim.RMSprop(net.parameters(), lr=args.lr)

    for ep in range(args.episodes):
        obs, _ = env.reset(seed=args.seed + ep)
        states, actions, rewards = [], [], []
        finished = False
        while not finished:
            s = torch.tensor(obs)
            with torch.no_grad():
                dist, _ = net(s)
                a = dist.sample()
            obs, r, term, trunc, _ = env.step(a.item())
            states.append(s)
            actions.append(a)
            rewards.append(r)
            finished = term or trunc

        dist, values = net(torch.stack(states))
        returns = discount(rewards, args.gamma)
        advantages = returns - values  # expect: broadcast
        logp = dist.log_prob(torch.stack(actions))
        pg_loss = -(logp * advantages.detach()).mean()
        vf_loss = advantages.pow(2).mean()
        loss = pg_loss + args.vf_coef * vf_loss - 0.01 * dist.entropy().mean()

        opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        opt.step()
        if ep % 10 == 0:
            print(f"ep {ep} len {len(rewards)} pg {pg_loss.item():.3f} vf {vf_loss.item():.3f}")
    env.close()


if __name__ == "__main__":
    main()
