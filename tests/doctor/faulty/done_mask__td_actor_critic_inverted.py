import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


def build_mlp(sizes):
    layers = []
    for i in range(len(sizes) - 1):
        layers.append(nn.Linear(sizes[i], sizes[i + 1]))
        if i < len(sizes) - 2:
            layers.append(nn.Tanh())
    return nn.Sequential(*layers)


def train(seed=0, max_steps=650, gamma=0.98):
    torch.manual_seed(seed)
    env = gym.make("CartPole-v1")
    actor = build_mlp([4, 64, 2])
    critic = build_mlp([4, 64, 1])
    actor_optim = torch.optim.Adam(actor.parameters(), lr=5e-4)
    critic_optim = torch.optim.Adam(critic.parameters(), lr=2e-3)

    state, _ = env.reset(seed=seed)
    score, scores = 0, []
    for i in range(max_steps):
        s = torch.tensor(state, dtype=torch.float32)
        log_probs = F.log_softmax(actor(s), dim=-1)
        action = torch.multinomial(log_probs.detach().exp(), 1).item()
        next_state, reward, terminated, truncated, _ = env.step(action)
        score += reward

        done = torch.tensor(float(terminated))
        v = critic(s).squeeze()
        with torch.no_grad():
            v_next = critic(torch.tensor(next_state, dtype=torch.float32)).squeeze()
            target = reward + gamma * v_next * done  # expect: done-mask
        delta = target - v

        critic_optim.zero_grad()
        delta.pow(2).backward()
        critic_optim.step()

        actor_optim.zero_grad()
        (-log_probs[action] * delta.detach()).backward()
        actor_optim.step()

        state = next_state
        if terminated or truncated:
            scores.append(score)
            score = 0
            state, _ = env.reset()
            if len(scores) % 10 == 0:
                print("episodes", len(scores), "avg score", np.mean(scores[-10:]), "V", round(v.item(), 2))
    return scores


if __name__ == "__main__":
    train()
