# PPO, toy lander: height & speed, thrust yes/no
import random, math
import torch
from torch import nn
from torch.distributions import Bernoulli

random.seed(0)
torch.manual_seed(0)


class Lander:
    def reset(self):
        self.h, self.v = random.uniform(0.5, 1.0), 0.0
        return (self.h, self.v)

    def step(self, thrust):
        self.v += 0.03 * thrust - 0.015
        self.h += self.v
        if self.h <= 0:
            return (0.0, self.v), 1.0 - 15 * abs(self.v), True
        if self.h > 1.5:
            return (self.h, self.v), -1.0, True
        return (self.h, self.v), -0.01 * thrust, False


class PPO:
    def __init__(self):
        self.actor = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 1))
        self.critic = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 1))
        self.actor_optim = torch.optim.Adam(self.actor.parameters(), lr=1e-3)
        self.critic_optim = torch.optim.Adam(self.critic.parameters(), lr=3e-3)
        self.mem = []

    def run_episode(self, env):
        o, done, total = env.reset(), False, 0.0
        steps = []
        while not done:
            x = torch.tensor(o)
            d = Bernoulli(logits=self.actor(x))
            a = d.sample()
            value = self.critic(x)
            o, r, done = env.step(a.item())
            steps.append([x, a, d.log_prob(a).detach(), r, value])
            total += r
        g = 0.0
        for s in reversed(steps):
            g = s[3] + 0.99 * g
            s[3] = g
        self.mem += steps
        return total

    def learn(self):
        x, a, lp_old, g, v = zip(*self.mem)
        x, a, lp_old, v = torch.stack(x), torch.stack(a), torch.stack(lp_old), torch.stack(v).squeeze(1)
        g = torch.tensor(g)
        adv = (g - v).detach()
        adv = (adv - adv.mean()) / (adv.std() + 1e-6)
        old_v = v.detach()
        for _ in range(5):
            lp = Bernoulli(logits=self.actor(x)).log_prob(a)
            ratio = (lp - lp_old).exp().squeeze(1)
            actor_loss = -torch.minimum(ratio * adv, ratio.clamp(0.8, 1.2) * adv).mean()
            self.actor_optim.zero_grad()
            actor_loss.backward()
            self.actor_optim.step()

            v_now = self.critic(x).squeeze(1)
            v_clip = old_v + (v_now - old_v).clamp(-0.2, 0.2)
            smooth = 1e-3 * v_now.pow(2).mean()
            critic_loss = (old_v - g).pow(2).mean() + smooth  # expect: stored-value
            self.critic_optim.zero_grad()
            critic_loss.backward()
            self.critic_optim.step()
        self.mem.clear()
        return critic_loss.item(), (v_clip - g).abs().mean().item()


agent, env = PPO(), Lander()
for it in range(30):
    rets = [agent.run_episode(env) for _ in range(8)]
    cl, gap = agent.learn()
    if it % 6 == 0:
        print(f"{it:3d} return {sum(rets) / 8:.3f} critic loss {cl:.4f} gap {gap:.3f}")
