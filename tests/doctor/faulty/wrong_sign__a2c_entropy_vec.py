"""A2C with an entropy bonus on a non-stationary bandit with context, [T, N] batches."""
import torch
import torch.nn as nn
from torch.distributions import Categorical


class VecContextBandit:
    def __init__(self, n, n_arms, seed):
        self.g = torch.Generator().manual_seed(seed)
        self.n, self.n_arms = n, n_arms
        self.table = torch.rand(n_arms, 5, generator=self.g)

    def observe(self):
        self.ctx = torch.rand(self.n, 5, generator=self.g)
        return self.ctx

    def pull(self, arm):
        mean = (self.ctx * self.table[arm]).sum(-1)
        return mean + 0.1 * torch.randn(self.n, generator=self.g)


class SharedNet(nn.Module):
    def __init__(self, d, k):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(d, 64), nn.ReLU())
        self.logits, self.value = nn.Linear(64, k), nn.Linear(64, 1)

    def forward(self, x):
        h = self.trunk(x)
        return Categorical(logits=self.logits(h)), self.value(h).squeeze(-1)


class A2C:
    def __init__(self, net, lr=2e-3, ent_coef=0.05, vf_coef=0.5):
        self.net, self.ent_coef, self.vf_coef = net, ent_coef, vf_coef
        self.opt = torch.optim.RMSprop(net.parameters(), lr=lr, alpha=0.99)

    def losses(self, ctx, arm, reward):
        dist, value = self.net(ctx)
        adv = (reward - value).detach()
        policy = -(adv * dist.log_prob(arm)).mean()
        critic = nn.functional.mse_loss(value, reward)
        return policy, critic, dist.entropy().mean()

    def update(self, *batch):
        policy, critic, entropy = self.losses(*batch)
        total = policy + self.vf_coef * critic + self.ent_coef * entropy  # expect: wrong-sign
        self.opt.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 0.5)
        self.opt.step()
        return {"pi": policy.item(), "vf": critic.item(), "entropy": entropy.item()}


def main():
    torch.manual_seed(2)
    T, N = 4, 16
    env, algo = VecContextBandit(N, 6, 2), A2C(SharedNet(5, 6))
    for it in range(300):
        rows = []
        for _ in range(T):
            ctx = env.observe()
            with torch.no_grad():
                arm = algo.net(ctx)[0].sample()
            rows.append((ctx, arm, env.pull(arm)))
        stats = algo.update(*(torch.stack(c) for c in zip(*rows)))
        if it % 75 == 74:
            print(it + 1, {k: round(v, 4) for k, v in stats.items()})


if __name__ == "__main__":
    main()
