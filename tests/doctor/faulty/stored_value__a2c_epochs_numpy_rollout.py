import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn

torch.manual_seed(4)
env = gym.make("CartPole-v1")
actor = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 2))
critic = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 1))
opt = torch.optim.Adam([*actor.parameters(), *critic.parameters()], lr=2e-3)

HORIZON, EPOCHS, BATCH, GAMMA, CLIP = 256, 4, 64, 0.99, 0.2


def discounted(rewards, ends, bootstraps):
    out = np.zeros_like(rewards)
    acc = 0.0
    for t in range(len(rewards) - 1, -1, -1):
        if ends[t] or t == len(rewards) - 1:
            acc = bootstraps[t]
        acc = rewards[t] + GAMMA * acc
        out[t] = acc
    return out


def rollout(state):
    mem = {"s": [], "a": [], "logp": [], "v": [], "r": [], "end": [], "boot": []}
    for _ in range(HORIZON):
        with torch.no_grad():
            x = torch.from_numpy(state)
            logp_all = torch.log_softmax(actor(x), dim=-1)
            a = torch.multinomial(logp_all.exp(), 1).item()
            v = critic(x).item()
        s2, r, terminated, truncated, _ = env.step(a)
        with torch.no_grad():
            boot = 0.0 if terminated else critic(torch.from_numpy(s2)).item()
        for key, value in zip(mem, (state, a, logp_all[a].item(), v, r, terminated or truncated, boot)):
            mem[key].append(value)
        state = env.reset()[0] if (terminated or truncated) else s2
    return {k: np.array(x, dtype=np.int64 if k == "a" else np.float32) for k, x in mem.items()}, state


state, _ = env.reset(seed=4)
for it in range(8):
    mem, state = rollout(state)
    ret = discounted(mem["r"], mem["end"], mem["boot"])
    adv = ret - mem["v"]
    adv = (adv - adv.mean()) / (adv.std() + 1e-6)
    states, actions = torch.from_numpy(mem["s"]), torch.from_numpy(mem["a"])
    old_logp, values = torch.from_numpy(mem["logp"]), torch.from_numpy(mem["v"])
    ret, adv = torch.from_numpy(ret), torch.from_numpy(adv)

    for epoch in range(EPOCHS):
        order = np.random.default_rng(epoch).permutation(HORIZON)
        for start in range(0, HORIZON, BATCH):
            k = order[start:start + BATCH]
            logp_all = torch.log_softmax(actor(states[k]), dim=-1)
            logp = logp_all.gather(1, actions[k].unsqueeze(1)).squeeze(1)
            ratio = (logp - old_logp[k]).exp()
            policy_loss = -torch.min(ratio * adv[k], ratio.clamp(1 - CLIP, 1 + CLIP) * adv[k]).mean()
            value_loss = (ret[k] - values[k]).pow(2).mean()  # expect: stored-value
            entropy = -(logp_all.exp() * logp_all).sum(1).mean()
            loss = policy_loss + 0.5 * value_loss - 0.01 * entropy
            opt.zero_grad()
            loss.backward()
            opt.step()
    print("iter", it, "ended", int(mem["end"].sum()), "value loss", round(value_loss.item(), 3))
