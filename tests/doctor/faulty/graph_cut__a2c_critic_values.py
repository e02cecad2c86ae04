import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.distributions import Categorical


class Model(nn.Module):
    def __init__(self, obs_dim, act_dim):
        super().__init__()
        self.policy = nn.Sequential(nn.Linear(obs_dim, 64), nn.Tanh(), nn.Linear(64, act_dim))
        self.critic = nn.Sequential(nn.Linear(obs_dim, 64), nn.Tanh(), nn.Linear(64, 1))

    def value(self, obs):
        return self.critic(obs).squeeze(-1)


def compute_gae(rewards, values, next_values, terminated, ended, gamma=0.99, lam=0.95):
    adv = torch.zeros_like(rewards)
    last = 0.0
    for t in reversed(range(len(rewards))):
        delta = rewards[t] + gamma * next_values[t] * (1 - terminated[t]) - values[t]
        last = delta + gamma * lam * (1 - ended[t]) * last
        adv[t] = last
    return adv


def collect(envs, obs, model, T):
    n = len(envs)
    data = {k: torch.zeros(T, n) for k in ("rew", "term", "end", "act")}
    data["obs"] = torch.zeros(T, n, 4)
    data["next_obs"] = torch.zeros(T, n, 4)
    for t in range(T):
        with torch.no_grad():
            act = Categorical(logits=model.policy(obs)).sample()
        data["obs"][t], data["act"][t] = obs, act
        nxt = []
        for i, env in enumerate(envs):
            o, r, term, trunc, _ = env.step(int(act[i]))
            data["rew"][t, i], data["term"][t, i], data["end"][t, i] = r, float(term), float(term or trunc)
            data["next_obs"][t, i] = torch.from_numpy(o)
            if term or trunc:
                o, _ = env.reset()
            nxt.append(o)
        obs = torch.from_numpy(np.stack(nxt))
    return data, obs


if __name__ == "__main__":
    torch.manual_seed(9)
    envs = [gym.make("CartPole-v1") for _ in range(4)]
    obs = torch.from_numpy(np.stack([e.reset(seed=9 + i)[0] for i, e in enumerate(envs)]))
    model = Model(4, 2)
    opt = torch.optim.Adam(model.parameters(), lr=2.5e-3)

    for it in range(60):
        data, obs = collect(envs, obs, model, T=16)
        with torch.no_grad():
            next_values = model.value(data["next_obs"])
        values = model.value(data["obs"]).detach()  # expect: graph-cut
        adv = compute_gae(data["rew"], values, next_values, data["term"], data["end"])
        returns = adv + values.detach()
        norm_adv = (adv - adv.mean()) / (adv.std() + 1e-8)

        dist = Categorical(logits=model.policy(data["obs"]))
        pg_loss = -(dist.log_prob(data["act"]) * norm_adv).mean()
        v_loss = 0.5 * (returns - values).pow(2).mean()
        loss = pg_loss + 0.5 * v_loss - 0.01 * dist.entropy().mean()
        opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        opt.step()
        if it % 15 == 14:
            print(it + 1, "episodes ended:", int(data["end"].sum()), "v_loss %.3f" % v_loss.item())
