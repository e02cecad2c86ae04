import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
from torch.distributions import Categorical


def ortho(layer, gain=2 ** 0.5):
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


class Agent(nn.Module):
    def __init__(self):
        super().__init__()
        self.actor = nn.Sequential(ortho(nn.Linear(4, 64)), nn.Tanh(), ortho(nn.Linear(64, 2), 0.01))
        self.critic = nn.Sequential(ortho(nn.Linear(4, 64)), nn.Tanh(), ortho(nn.Linear(64, 1), 1.0))

    def evaluate(self, x, a):
        d = Categorical(logits=self.actor(x))
        return d.log_prob(a), d.entropy(), self.critic(x).squeeze(-1)


def compute_gae(rewards, values, next_values, terminations, boundaries, gamma=0.98, lam=0.95):
    """All arguments [T, N]. boundaries marks the last step of an episode, for whatever reason."""
    T = rewards.shape[0]
    deltas = rewards + gamma * next_values - values  # expect: done-mask
    advantages = torch.zeros_like(rewards)
    last = torch.zeros_like(rewards[0])
    for t in range(T - 1, -1, -1):
        last = deltas[t] + gamma * lam * (1.0 - boundaries[t]) * last
        advantages[t] = last
    return advantages


torch.manual_seed(1)
T, N = 64, 4
envs = [gym.make("CartPole-v1") for _ in range(N)]
obs = torch.as_tensor(np.stack([e.reset(seed=i)[0] for i, e in enumerate(envs)]))
agent = Agent()
optimizer = torch.optim.Adam(agent.parameters(), lr=2.5e-3, eps=1e-5)
lengths, current = [], np.zeros(N)

for it in range(10):
    S, NS = torch.zeros(T, N, 4), torch.zeros(T, N, 4)
    A = torch.zeros(T, N, dtype=torch.long)
    LP, R, TERM, END = (torch.zeros(T, N) for _ in range(4))
    with torch.no_grad():
        for t in range(T):
            d = Categorical(logits=agent.actor(obs))
            A[t] = d.sample()
            S[t], LP[t] = obs, d.log_prob(A[t])
            nxt = []
            for i, e in enumerate(envs):
                o, r, term, trunc, _ = e.step(A[t, i].item())
                NS[t, i] = torch.as_tensor(o)
                R[t, i], TERM[t, i], END[t, i] = r, float(term), float(term or trunc)
                current[i] += 1
                if term or trunc:
                    lengths.append(current[i]); current[i] = 0
                    o, _ = e.reset()
                nxt.append(o)
            obs = torch.as_tensor(np.stack(nxt))
        V, NV = agent.critic(S).squeeze(-1), agent.critic(NS).squeeze(-1)
        ADV = compute_gae(R, V, NV, TERM, END)
        RET = ADV + V

    flat = [x.flatten(0, 1) for x in (S, A, LP, ADV, RET)]
    for _ in range(4):
        for mb in torch.randperm(T * N).split(64):
            s, a, lp, adv, ret = (x[mb] for x in flat)
            new_lp, ent, v = agent.evaluate(s, a)
            ratio = (new_lp - lp).exp()
            adv = (adv - adv.mean()) / (adv.std() + 1e-8)
            pg = torch.max(-adv * ratio, -adv * ratio.clamp(0.8, 1.2)).mean()
            loss = pg + 0.5 * (v - ret).square().mean() - 0.01 * ent.mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
            optimizer.step()
    if it % 3 == 0:
        print(it, f"episode length {np.mean(lengths[-20:]):.1f} mean value {V.mean().item():.2f}")
