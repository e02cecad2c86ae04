# A2C with GAE on a home-made vectorised environment.
# The runner stays on the treadmill for as long as it keeps near the middle (falls off at |x|>1).
from typing import NamedTuple
import torch
from torch import nn


class StepResult(NamedTuple):
    obs: torch.Tensor
    reward: torch.Tensor
    fell: torch.Tensor
    timeout: torch.Tensor
    last_obs: torch.Tensor


class Treadmills:
    LIMIT = 20

    def __init__(self, n: int, gen: torch.Generator):
        self.n, self.gen = n, gen
        self.x = self._draw(n)
        self.clock = torch.zeros(n, dtype=torch.long)

    def _draw(self, k):
        return torch.rand(k, 2, generator=self.gen) - 0.5

    def step(self, a: torch.Tensor) -> StepResult:
        acc = 0.12 * (a.float() - 1.0)
        v = 0.9 * self.x[:, 1] + acc + 0.04 * torch.randn(self.n, generator=self.gen)
        self.x = torch.stack([self.x[:, 0] + v, v], 1)
        self.clock += 1
        fell = self.x[:, 0].abs() > 1.0
        timeout = (self.clock >= self.LIMIT) & ~fell
        last = self.x.clone()
        over = fell | timeout
        self.x = torch.where(over[:, None], self._draw(self.n), self.x)
        self.clock[over] = 0
        return StepResult(self.x.clone(), torch.ones(self.n), fell, timeout, last)


def main():
    torch.manual_seed(40)
    env = Treadmills(16, torch.Generator().manual_seed(40))
    actor = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 3))
    critic = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 1))
    opt = torch.optim.RMSprop([{"params": actor.parameters(), "lr": 1e-3}, {"params": critic.parameters(), "lr": 3e-3}], lr=1e-3)
    gamma, lam, T = 0.98, 0.9, 20
    obs = env.x.clone()
    for it in range(120):
        logps, values, next_values, rewards, ends, ent = [], [], [], [], [], 0.0
        for _ in range(T):
            pi = torch.distributions.Categorical(logits=actor(obs))
            a = pi.sample()
            values.append(critic(obs).squeeze(1))
            logps.append(pi.log_prob(a))
            ent = ent + pi.entropy().mean() / T
            out = env.step(a)
            with torch.no_grad():
                next_values.append(critic(out.last_obs).squeeze(1))
            rewards.append(out.reward)
            ends.append((out.fell | out.timeout).float())  # expect: truncation
            obs = out.obs
        values = torch.stack(values)
        gae, advs = torch.zeros(env.n), []
        for t in range(T - 1, -1, -1):
            live = 1.0 - ends[t]
            delta = rewards[t] + gamma * live * next_values[t] - values[t].detach()
            gae = delta + gamma * lam * live * gae
            advs.append(gae)
        adv = torch.stack(advs[::-1])
        targets = adv + values.detach()
        norm = (adv - adv.mean()) / (adv.std() + 1e-8)
        loss = -(torch.stack(logps) * norm).mean() + 0.5 * (values - targets).pow(2).mean() - 0.01 * ent
        opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([*actor.parameters(), *critic.parameters()], 1.0)
        opt.step()
        if it % 30 == 0:
            print(f"{it:3d} ends per step {torch.stack(ends).mean():.3f} value {values.mean():.2f}")


main()
