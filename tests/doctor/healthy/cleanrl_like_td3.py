# TD3 for continuous control, one file
import argparse
import random
import time

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim
from gymnasium.vector import AutoresetMode


def parse_args():
    p = argparse.ArgumentParser()
    p.add_argument("--env-id", default="Pendulum-v1")
    p.add_argument("--seed", type=int, default=2)
    p.add_argument("--total-timesteps", type=int, default=800)
    p.add_argument("--learning-rate", type=float, default=1e-3)
    p.add_argument("--buffer-size", type=int, default=20_000)
    p.add_argument("--gamma", type=float, default=0.98)
    p.add_argument("--tau", type=float, default=0.005)
    p.add_argument("--batch-size", type=int, default=64)
    p.add_argument("--policy-noise", type=float, default=0.2)
    p.add_argument("--exploration-noise", type=float, default=0.1)
    p.add_argument("--learning-starts", type=int, default=200)
    p.add_argument("--policy-frequency", type=int, default=2)
    p.add_argument("--noise-clip", type=float, default=0.5)
    return p.parse_args()


class Buffer:
    """Ring of transitions kept as torch tensors."""

    def __init__(self, capacity, obs_dim, act_dim):
        self.observations = torch.zeros(capacity, obs_dim)
        self.next_observations = torch.zeros(capacity, obs_dim)
        self.actions = torch.zeros(capacity, act_dim)
        self.rewards = torch.zeros(capacity, 1)
        self.dones = torch.zeros(capacity, 1)
        self.capacity, self.count = capacity, 0

    def add(self, obs, next_obs, action, reward, done):
        i = self.count % self.capacity
        self.observations[i] = torch.as_tensor(obs)
        self.next_observations[i] = torch.as_tensor(next_obs)
        self.actions[i] = torch.as_tensor(action)
        self.rewards[i, 0] = float(reward)
        self.dones[i, 0] = float(done)
        self.count += 1

    def sample(self, n):
        idx = torch.randint(0, min(self.count, self.capacity), (n,))
        return (
            self.observations[idx],
            self.next_observations[idx],
            self.actions[idx],
            self.rewards[idx],
            self.dones[idx],
        )


class QNetwork(nn.Module):
    def __init__(self, env):
        super().__init__()
        obs_dim, act_dim = env.single_observation_space.shape[0], env.single_action_space.shape[0]
        self.fc1 = nn.Linear(obs_dim + act_dim, 64)
        self.fc2 = nn.Linear(64, 64)
        self.fc3 = nn.Linear(64, 1)

    def forward(self, x, a):
        x = F.relu(self.fc1(torch.cat([x, a], 1)))
        x = F.relu(self.fc2(x))
        return self.fc3(x)


class Actor(nn.Module):
    def __init__(self, env):
        super().__init__()
        self.fc1 = nn.Linear(env.single_observation_space.shape[0], 64)
        self.fc2 = nn.Linear(64, 64)
        self.fc_mu = nn.Linear(64, env.single_action_space.shape[0])
        high, low = env.single_action_space.high, env.single_action_space.low
        self.register_buffer("action_scale", torch.tensor((high - low) / 2.0, dtype=torch.float32))
        self.register_buffer("action_bias", torch.tensor((high + low) / 2.0, dtype=torch.float32))

    def forward(self, x):
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return torch.tanh(self.fc_mu(x)) * self.action_scale + self.action_bias


if __name__ == "__main__":
    args = parse_args()
    random.seed(args.seed)
    np.random.seed(args.seed)
    torch.manual_seed(args.seed)

    envs = gym.vector.SyncVectorEnv([lambda: gym.make(args.env_id)], autoreset_mode=AutoresetMode.SAME_STEP)
    envs.action_space.seed(args.seed)
    low, high = float(envs.single_action_space.low[0]), float(envs.single_action_space.high[0])

    actor, target_actor = Actor(envs), Actor(envs)
    qf1, qf2, qf1_target, qf2_target = (QNetwork(envs) for _ in range(4))
    target_actor.load_state_dict(actor.state_dict())
    qf1_target.load_state_dict(qf1.state_dict())
    qf2_target.load_state_dict(qf2.state_dict())
    q_optimizer = optim.Adam(list(qf1.parameters()) + list(qf2.parameters()), lr=args.learning_rate)
    actor_optimizer = optim.Adam(list(actor.parameters()), lr=args.learning_rate)

    rb = Buffer(args.buffer_size, envs.single_observation_space.shape[0], envs.single_action_space.shape[0])
    start_time, ep_return = time.time(), 0.0
    obs, _ = envs.reset(seed=args.seed)
    for global_step in range(args.total_timesteps):
        if global_step < args.learning_starts:
            actions = envs.action_space.sample()
        else:
            with torch.no_grad():
                actions = actor(torch.Tensor(obs))
                actions += torch.normal(0, actor.action_scale * args.exploration_noise)
                actions = actions.cpu().numpy().clip(envs.single_action_space.low, envs.single_action_space.high)

        next_obs, rewards, terminations, truncations, infos = envs.step(actions)
        ep_return += rewards[0]
        if terminations[0] or truncations[0]:
            print(f"global_step={global_step} episodic_return={ep_return:.1f}")
            ep_return = 0.0

        real_next_obs = next_obs.copy()
        if truncations[0]:
            real_next_obs[0] = infos["final_obs"][0]
        rb.add(obs[0], real_next_obs[0], actions[0], rewards[0], terminations[0])
        obs = next_obs

        if global_step > args.learning_starts:
            b_obs, b_next, b_act, b_rew, b_done = rb.sample(args.batch_size)
            with torch.no_grad():
                clipped_noise = (torch.randn_like(b_act) * args.policy_noise).clamp(
                    -args.noise_clip, args.noise_clip
                ) * target_actor.action_scale
                next_state_actions = (target_actor(b_next) + clipped_noise).clamp(low, high)
                qf1_next_target = qf1_target(b_next, next_state_actions)
                qf2_next_target = qf2_target(b_next, next_state_actions)
                min_qf_next_target = torch.min(qf1_next_target, qf2_next_target)
                next_q_value = b_rew.flatten() + (1 - b_done.flatten()) * args.gamma * min_qf_next_target.view(-1)

            qf1_a_values = qf1(b_obs, b_act).view(-1)
            qf2_a_values = qf2(b_obs, b_act).view(-1)
            qf_loss = F.mse_loss(qf1_a_values, next_q_value) + F.mse_loss(qf2_a_values, next_q_value)
            q_optimizer.zero_grad()
            qf_loss.backward()
            q_optimizer.step()

            if global_step % args.policy_frequency == 0:
                actor_loss = -qf1(b_obs, actor(b_obs)).mean()
                actor_optimizer.zero_grad()
                actor_loss.backward()
                actor_optimizer.step()

                for net, target in ((actor, target_actor), (qf1, qf1_target), (qf2, qf2_target)):
                    for param, target_param in zip(net.parameters(), target.parameters()):
                        target_param.data.copy_(args.tau * param.data + (1 - args.tau) * target_param.data)

                if global_step % 100 == 0:
                    print(
                        f"step {global_step} qf_loss={qf_loss.item():.3f} actor_loss={actor_loss.item():.3f} "
                        f"SPS={int(global_step / (time.time() - start_time))}"
                    )
    envs.close()
