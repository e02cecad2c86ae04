import argparse
import torch
import torch.nn as nn
from torch.distributions import Normal

p = argparse.ArgumentParser()
p.add_argument("--ent-coef", type=float, default=0.1)
p.add_argument("--clip", type=float, default=0.2)
p.add_argument("--lr", type=float, default=0.01)
p.add_argument("--updates", type=int, default=45)
args = p.parse_args()

torch.manual_seed(40)


class Agent(nn.Module):
    def __init__(self, obs_dim, act_dim):
        super().__init__()
        self.mean = nn.Sequential(nn.Linear(obs_dim, 32), nn.Tanh(), nn.Linear(32, act_dim))
        self.value = nn.Sequential(nn.Linear(obs_dim, 32), nn.Tanh(), nn.Linear(32, 1))
        self.logstd = nn.Parameter(torch.zeros(1, act_dim))

    def get_dist(self, x):
        mean = self.mean(x)
        std = self.logstd.expand_as(mean).exp()  # expect: std-collapse
        return Normal(mean, std)


def env_reward(obs, act):
    # the actuators saturate, beyond +-1 nothing changes
    u = act.clamp(-1, 1)
    return 1.0 - 0.1 * (u - obs.sign()).abs().sum(dim=1)


agent = Agent(3, 3)
opt = torch.optim.Adam(agent.parameters(), lr=args.lr, eps=1e-5)
for update in range(args.updates):
    with torch.no_grad():
        obs = torch.randn(256, 3)
        dist = agent.get_dist(obs)
        act = dist.sample()
        old_logp = dist.log_prob(act).sum(-1)
        rew = env_reward(obs, act)
        adv = rew - agent.value(obs).squeeze(-1)
    for _ in range(4):
        for mb in torch.randperm(256).split(64):
            dist = agent.get_dist(obs[mb])
            ratio = (dist.log_prob(act[mb]).sum(-1) - old_logp[mb]).exp()
            clipped = ratio.clamp(1 - args.clip, 1 + args.clip)
            pg_loss = -torch.min(ratio * adv[mb], clipped * adv[mb]).mean()
            v_loss = (agent.value(obs[mb]).squeeze(-1) - rew[mb]).pow(2).mean()
            entropy = dist.entropy().sum(-1).mean()
            loss = pg_loss + 0.5 * v_loss - args.ent_coef * entropy
            opt.zero_grad()
            loss.backward()
            opt.step()
    if update % 5 == 0 or update == args.updates - 1:
        print(f"update {update:3d} reward {rew.mean().item():.3f} entropy {entropy.item():.3f} std {agent.logstd.exp().mean().item():.3g}")
