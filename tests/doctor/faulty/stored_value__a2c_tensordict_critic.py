import gymnasium as gym
import torch
from torch import nn
from torch.distributions import Categorical

torch.manual_seed(1)
GAMMA, LAM, T, N = 0.99, 0.95, 16, 4

actor = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 2))
critic = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 1))
optim = torch.optim.RMSprop([
    {"params": actor.parameters(), "lr": 7e-4},
    {"params": critic.parameters(), "lr": 2e-3},
], eps=1e-5)

envs = [gym.make("CartPole-v1") for _ in range(N)]
obs = torch.stack([torch.as_tensor(e.reset(seed=i)[0]) for i, e in enumerate(envs)])


def empty_td():
    return {
        "obs": torch.zeros(T, N, 4),
        "action": torch.zeros(T, N, dtype=torch.long),
        "reward": torch.zeros(T, N),
        "terminated": torch.zeros(T, N),
        "ended": torch.zeros(T, N),
        "state_value": torch.zeros(T, N),
        "next_value": torch.zeros(T, N),
    }


def rollout(obs):
    td = empty_td()
    with torch.no_grad():
        for t in range(T):
            td["obs"][t] = obs
            td["state_value"][t] = critic(obs).squeeze(-1)
            a = Categorical(logits=actor(obs)).sample()
            td["action"][t] = a
            nxt = []
            for i, e in enumerate(envs):
                o, r, term, trunc, _ = e.step(a[i].item())
                o = torch.as_tensor(o)
                td["reward"][t, i] = r
                td["terminated"][t, i] = float(term)
                td["ended"][t, i] = float(term or trunc)
                td["next_value"][t, i] = critic(o).item()
                if term or trunc:
                    o = torch.as_tensor(e.reset()[0])
                nxt.append(o)
            obs = torch.stack(nxt)
    return td, obs


def add_advantage(td):
    adv = torch.zeros(T, N)
    run = torch.zeros(N)
    for t in reversed(range(T)):
        delta = td["reward"][t] + GAMMA * (1 - td["terminated"][t]) * td["next_value"][t] - td["state_value"][t]
        run = delta + GAMMA * LAM * (1 - td["ended"][t]) * run
        adv[t] = run
    td["advantage"] = adv
    td["value_target"] = adv + td["state_value"]
    return td


for it in range(120):
    td, obs = rollout(obs)
    td = add_advantage(td)
    dist = Categorical(logits=actor(td["obs"]))
    log_prob = dist.log_prob(td["action"])
    loss_objective = -(log_prob * td["advantage"]).mean()
    loss_critic = nn.functional.smooth_l1_loss(td["state_value"], td["value_target"])  # expect: stored-value
    loss_entropy = -0.01 * dist.entropy().mean()
    optim.zero_grad()
    (loss_objective + loss_critic + loss_entropy).backward()
    nn.utils.clip_grad_norm_(actor.parameters(), 0.5)
    optim.step()
    if it % 40 == 0:
        print(it, round(loss_objective.item(), 4), round(loss_critic.item(), 4))
