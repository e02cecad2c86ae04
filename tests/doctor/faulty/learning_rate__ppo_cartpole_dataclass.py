import dataclasses
import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
from torch.distributions.categorical import Categorical


@dataclasses.dataclass
class Args:
    seed: int = 1
    learning_rate: float = 2.5e-13  # expect: learning-rate
    num_steps: int = 256
    iterations: int = 10
    gamma: float = 0.99
    lam: float = 0.95
    clip_coef: float = 0.2
    ent_coef: float = 0.01
    minibatch: int = 64
    epochs: int = 4


def layer_init(layer, std=np.sqrt(2)):
    nn.init.orthogonal_(layer.weight, std)
    nn.init.constant_(layer.bias, 0.1)
    return layer


class Agent(nn.Module):
    def __init__(self):
        super().__init__()
        self.critic = nn.Sequential(layer_init(nn.Linear(4, 64)), nn.Tanh(), layer_init(nn.Linear(64, 1), std=1.0))
        self.actor = nn.Sequential(layer_init(nn.Linear(4, 64)), nn.Tanh(), layer_init(nn.Linear(64, 2), std=0.01))

    def evaluate(self, x, a=None):
        d = Categorical(logits=self.actor(x))
        if a is None:
            a = d.sample()
        return a, d.log_prob(a), d.entropy(), self.critic(x).flatten()


args = Args()
torch.manual_seed(args.seed)
env = gym.make("CartPole-v1")
agent = Agent()
opt = torch.optim.Adam(agent.parameters(), lr=args.learning_rate, eps=1e-5)
T = args.num_steps
obs_b, act_b = torch.zeros(T, 4), torch.zeros(T, dtype=torch.long)
lp_b, val_b, rew_b, done_b = (torch.zeros(T) for _ in range(4))

obs, _ = env.reset(seed=args.seed)
ep_len, lens = 0, []
for it in range(args.iterations):
    for t in range(T):
        x = torch.as_tensor(obs)
        with torch.no_grad():
            a, lp, _, v = agent.evaluate(x.unsqueeze(0))
        obs_b[t], act_b[t], lp_b[t], val_b[t] = x, a.item(), lp.item(), v.item()
        obs, r, term, trunc, _ = env.step(a.item())
        ep_len += 1
        if trunc and not term:
            with torch.no_grad():
                r += args.gamma * agent.critic(torch.as_tensor(obs)).item()
        rew_b[t], done_b[t] = float(r), float(term or trunc)
        if term or trunc:
            lens.append(ep_len)
            ep_len = 0
            obs, _ = env.reset()
    with torch.no_grad():
        nv = agent.critic(torch.as_tensor(obs)).squeeze()
    adv, last = torch.zeros(T), 0.0
    for t in reversed(range(T)):
        nxt = nv if t == T - 1 else val_b[t + 1]
        delta = rew_b[t] + args.gamma * nxt * (1 - done_b[t]) - val_b[t]
        adv[t] = last = delta + args.gamma * args.lam * (1 - done_b[t]) * last
    ret = adv + val_b
    for _ in range(args.epochs):
        for mb in torch.randperm(T).split(args.minibatch):
            _, nlp, ent, nval = agent.evaluate(obs_b[mb], act_b[mb])
            ratio = (nlp - lp_b[mb]).exp()
            A = (adv[mb] - adv[mb].mean()) / (adv[mb].std() + 1e-8)
            pg = torch.max(-A * ratio, -A * ratio.clamp(1 - args.clip_coef, 1 + args.clip_coef)).mean()
            loss = pg + 0.5 * ((nval - ret[mb]) ** 2).mean() - args.ent_coef * ent.mean()
            opt.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
            opt.step()
    print(f"iter {it} mean length {np.mean(lens[-10:]):.1f}")
