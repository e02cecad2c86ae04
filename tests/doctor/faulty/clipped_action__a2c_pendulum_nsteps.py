import gymnasium as gym
import torch
import torch.nn as nn
from torch.distributions import Normal

torch.manual_seed(9)


class GaussianActor(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh())
        self.mu = nn.Linear(64, 1)
        self.log_std = nn.Parameter(torch.full((1,), 0.4))

    def forward(self, s):
        return Normal(self.mu(self.body(s)), self.log_std.clamp(-2, 1).exp())


actor = GaussianActor()
critic = nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))
opt_actor = torch.optim.RMSprop(actor.parameters(), lr=7e-4, eps=1e-5)
opt_critic = torch.optim.RMSprop(critic.parameters(), lr=2e-3, eps=1e-5)

env = gym.make("Pendulum-v1")
low, high = float(env.action_space.low[0]), float(env.action_space.high[0])
gamma, n_steps = 0.95, 20

state, _ = env.reset(seed=9)
state = torch.from_numpy(state)
ep_reward, ep_rewards = 0.0, []
for update in range(100):
    states, logps, entropies, rewards, bootstraps = [], [], [], [], []
    for k in range(n_steps):
        dist = actor(state)
        action = dist.sample()
        action = torch.clamp(action, low, high)  # expect: clipped-action
        logps.append(dist.log_prob(action).sum())
        entropies.append(dist.entropy().sum())
        nxt, reward, terminated, truncated, _ = env.step(action.numpy())
        ep_reward += reward
        nxt = torch.from_numpy(nxt)
        states.append(state)
        rewards.append(0.1 * float(reward))
        # value after this step is needed only where the segment ends
        bootstraps.append(nxt if truncated or k == n_steps - 1 else None)
        state = nxt
        if terminated or truncated:
            ep_rewards.append(ep_reward)
            ep_reward = 0.0
            obs, _ = env.reset()
            state = torch.from_numpy(obs)

    with torch.no_grad():
        ret, returns = 0.0, []
        for r, tail in zip(reversed(rewards), reversed(bootstraps)):
            if tail is not None:
                ret = critic(tail).item()
            ret = r + gamma * ret
            returns.insert(0, ret)
    returns = torch.tensor(returns)
    values = critic(torch.stack(states)).squeeze(-1)
    advantage = returns - values

    critic_loss = advantage.pow(2).mean()
    opt_critic.zero_grad()
    critic_loss.backward()
    opt_critic.step()

    adv = advantage.detach()
    adv = (adv - adv.mean()) / (adv.std() + 1e-8)
    actor_loss = -(torch.stack(logps) * adv).mean() - 0.001 * torch.stack(entropies).mean()
    opt_actor.zero_grad()
    actor_loss.backward()
    opt_actor.step()

    if update % 20 == 0:
        print(f"update {update} critic {critic_loss.item():.3f} std {actor.log_std.exp().item():.3f} "
              f"last episodes {[round(x) for x in ep_rewards[-3:]]}")
