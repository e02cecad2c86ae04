"""PPO-clip on a small key-door corridor with a learned observation embedding."""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical


class KeyDoor:
    """Walk left to fetch the key, then right to the door. Observation: token ids."""

    def __init__(self, n: int = 7, limit: int = 40):
        self.n, self.limit = n, limit

    def reset(self) -> np.ndarray:
        self.pos, self.key, self.t = self.n // 2, 0, 0
        return self._obs()

    def _obs(self) -> np.ndarray:
        return np.array([self.pos, self.n + self.key], dtype=np.int64)

    def step(self, a: int):
        self.t += 1
        self.pos = int(np.clip(self.pos + (1 if a == 1 else -1), 0, self.n - 1))
        r = -0.02
        if self.pos == 0 and not self.key:
            self.key, r = 1, 0.5
        terminal = bool(self.pos == self.n - 1 and self.key)
        if terminal:
            r = 1.0
        return self._obs(), r, terminal, self.t >= self.limit


class Agent(nn.Module):
    def __init__(self, n_tokens: int, n_actions: int):
        super().__init__()
        self.table = nn.Embedding(n_tokens, 8)
        self.mix = nn.Sequential(nn.Linear(16, 32), nn.Tanh())
        self.pi = nn.Linear(32, n_actions)
        self.v = nn.Linear(32, 1)

    @torch.no_grad()  # expect: graph-cut
    def encode(self, tokens: Tensor) -> Tensor:
        return self.mix(self.table(tokens).flatten(1))

    @torch.no_grad()
    def act(self, tokens: Tensor) -> tuple[int, float, float]:
        h = self.encode(tokens)
        d = Categorical(logits=self.pi(h))
        a = d.sample()
        return a.item(), d.log_prob(a).item(), self.v(h).item()

    def evaluate(self, tokens: Tensor, actions: Tensor):
        h = self.encode(tokens)
        d = Categorical(logits=self.pi(h))
        return d.log_prob(actions), d.entropy(), self.v(h).squeeze(-1)


def rollout(env: KeyDoor, agent: Agent, n: int, gamma=0.97, lam=0.9):
    obs, act, logp, adv, ret, totals = [], [], [], [], [], []
    while len(obs) < n:
        o, rews, vals, total = env.reset(), [], [], 0.0
        while True:
            a, lp, v = agent.act(torch.from_numpy(o)[None])
            obs.append(o), act.append(a), logp.append(lp), vals.append(v)
            o, r, terminal, timeout = env.step(a)
            rews.append(r)
            total += r
            if terminal or timeout:
                break
        last = 0.0 if terminal else agent.act(torch.from_numpy(o)[None])[2]
        vals.append(last)
        g, tail = 0.0, []
        for t in reversed(range(len(rews))):
            g = rews[t] + gamma * vals[t + 1] - vals[t] + gamma * lam * g
            tail.append(g)
        tail.reverse()
        adv += tail
        ret += [x + v for x, v in zip(tail, vals)]
        totals.append(total)
    f = lambda x: torch.tensor(x, dtype=torch.float32)
    return torch.from_numpy(np.stack(obs)), torch.tensor(act), f(logp), f(adv), f(ret), np.mean(totals)


def main():
    torch.manual_seed(11)
    env, agent = KeyDoor(), Agent(9, 2)
    opt = torch.optim.Adam(agent.parameters(), lr=3e-3, eps=1e-5)
    for it in range(15):
        obs, act, logp_old, adv, ret, score = rollout(env, agent, 256)
        adv = (adv - adv.mean()) / (adv.std() + 1e-8)
        for _ in range(4):
            for idx in torch.randperm(len(obs)).split(64):
                logp, ent, v = agent.evaluate(obs[idx], act[idx])
                ratio = (logp - logp_old[idx]).exp()
                pg = -torch.min(ratio * adv[idx], ratio.clamp(0.8, 1.2) * adv[idx]).mean()
                loss = pg + 0.5 * (v - ret[idx]).pow(2).mean() - 0.01 * ent.mean()
                opt.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
                opt.step()
        if it % 3 == 0:
            print(f"iter {it:3d}  return {score:+.3f}")


main()
