"""Synchronous advantage actor-critic with a shared trunk and one joint loss."""
import copy

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
from gymnasium.vector import AutoresetMode, SyncVectorEnv

NUM_ENVS, N_STEPS, UPDATES = 8, 8, 170
GAMMA, ENT_COEF, VF_COEF = 0.95, 0.01, 0.25


class ActorCritic(nn.Module):
    def __init__(self, obs_dim, n_actions):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(obs_dim, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh())
        self.pi = nn.Linear(64, n_actions)
        self.v = nn.Linear(64, 1)
        nn.init.zeros_(self.pi.weight)

    def forward(self, obs):
        h = self.trunk(obs)
        return torch.distributions.Categorical(logits=self.pi(h)), self.v(h).squeeze(-1)


@torch.no_grad()
def evaluate(model, episodes=2):
    """Greedy episodes with a frozen copy."""
    frozen = copy.deepcopy(model).eval()
    for p in frozen.parameters():
        p.requires_grad_(False)
    env, total = gym.make("CartPole-v1", max_episode_steps=200), 0.0
    for ep in range(episodes):
        obs, _ = env.reset(seed=1000 + ep)
        over = False
        while not over:
            dist, _ = frozen(torch.as_tensor(obs))
            obs, r, term, trunc, _ = env.step(dist.probs.argmax().item())
            total += r
            over = term or trunc
    return total / episodes


torch.manual_seed(7)
envs = SyncVectorEnv(
    [lambda: gym.make("CartPole-v1", max_episode_steps=200)] * NUM_ENVS, autoreset_mode=AutoresetMode.SAME_STEP
)
model = ActorCritic(4, 2)
optimizer = torch.optim.RMSprop(model.parameters(), lr=3e-3, alpha=0.99, eps=1e-5)

obs, _ = envs.reset(seed=7)
for update in range(UPDATES):
    logps, values, entropies, rewards, masks = [], [], [], [], []
    for _ in range(N_STEPS):
        dist, value = model(torch.as_tensor(obs))
        action = dist.sample()
        obs, reward, terminated, truncated, info = envs.step(action.numpy())
        reward = torch.as_tensor(reward, dtype=torch.float32)
        for i in np.flatnonzero(truncated & ~terminated):
            # cut by the clock: the value of where it was cut stands for the rest
            with torch.no_grad():
                reward[i] += GAMMA * model(torch.as_tensor(info["final_obs"][i]))[1]
        logps.append(dist.log_prob(action))
        values.append(value)
        entropies.append(dist.entropy())
        rewards.append(reward)
        masks.append(torch.as_tensor(~(terminated | truncated), dtype=torch.float32))

    with torch.no_grad():
        ret = model(torch.as_tensor(obs))[1]
    returns = []
    for r, m in zip(reversed(rewards), reversed(masks)):
        ret = r + GAMMA * m * ret
        returns.insert(0, ret)

    returns, values = torch.stack(returns), torch.stack(values)
    advantages = returns - values
    policy_loss = -(torch.stack(logps) * advantages.detach()).mean()
    value_loss = advantages.pow(2).mean()
    entropy = torch.stack(entropies).mean()

    loss = policy_loss + VF_COEF * value_loss - ENT_COEF * entropy
    optimizer.zero_grad()
    loss.backward()
    grad_norm = nn.utils.clip_grad_norm_(model.parameters(), 2.0)
    optimizer.step()

    if update % 34 == 33:
        print(f"update {update + 1} v_loss {value_loss.item():.2f} H {entropy.item():.3f} "
              f"|g| {grad_norm.item():.2f} eval {evaluate(model):.0f}")
envs.close()
