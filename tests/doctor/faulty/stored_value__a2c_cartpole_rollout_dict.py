import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


class ActorCritic(nn.Module):
    def __init__(self, n_obs, n_act):
        super().__init__()
        self.policy = nn.Sequential(nn.Linear(n_obs, 64), nn.Tanh(), nn.Linear(64, n_act))
        self.value = nn.Sequential(nn.Linear(n_obs, 64), nn.Tanh(), nn.Linear(64, 1))


def collect(env, model, obs, n, gamma):
    roll = dict(obs=[], act=[], logp=[], rew=[], cont=[], lens=[])
    length = 0
    for _ in range(n):
        x = torch.as_tensor(obs, dtype=torch.float32)
        with torch.no_grad():
            logp = F.log_softmax(model.policy(x), dim=-1)
        a = int(torch.multinomial(logp.exp(), 1))
        obs, r, term, trunc, _ = env.step(a)
        length += 1
        if trunc and not term:
            with torch.no_grad():
                r = r + gamma * model.value(torch.as_tensor(obs)).item()
        roll["obs"].append(x)
        roll["act"].append(a)
        roll["logp"].append(logp[a])
        roll["rew"].append(r)
        roll["cont"].append(0.0 if term or trunc else 1.0)
        if term or trunc:
            roll["lens"].append(length)
            length = 0
            obs, _ = env.reset()
    with torch.no_grad():
        g = model.value(torch.as_tensor(obs)).item()
    ret = np.zeros(n, dtype=np.float32)
    for t in range(n - 1, -1, -1):
        g = roll["rew"][t] + gamma * roll["cont"][t] * g
        ret[t] = g
    return dict(obs=torch.stack(roll["obs"]), act=torch.tensor(roll["act"]), logp=torch.stack(roll["logp"]),
                ret=torch.from_numpy(ret), lens=roll["lens"]), obs


def main():
    torch.manual_seed(10)
    env = gym.make("CartPole-v1")
    model = ActorCritic(4, 2)
    opt = torch.optim.Adam(model.parameters(), lr=3e-3)
    obs, _ = env.reset(seed=10)
    for it in range(60):
        data, obs = collect(env, model, obs, 100, 0.97)
        value = model.value(data["obs"]).squeeze(-1)
        logits = model.policy(data["obs"])
        advantage = data["ret"] - value.detach()
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        policy_loss = -(data["logp"] * advantage).mean()  # expect: stored-value
        value_loss = F.mse_loss(value, data["ret"])
        entropy = torch.distributions.Categorical(logits=logits).entropy().mean()
        loss = policy_loss + 0.5 * value_loss - 0.01 * entropy
        opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        opt.step()
        if it % 15 == 0:
            print(f"iter {it}: episode length {np.mean(data['lens']):.1f} entropy {entropy.item():.3f}")


if __name__ == "__main__":
    main()
