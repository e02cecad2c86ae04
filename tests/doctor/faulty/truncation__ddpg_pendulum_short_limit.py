import copy
import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn

SEED = 12
torch.manual_seed(SEED)
np.random.seed(SEED)

env = gym.make("Pendulum-v1", max_episode_steps=40)
obs_dim, act_dim = 3, 1
act_limit = 2.0


def build(n_in, n_out, squash=False):
    seq = [nn.Linear(n_in, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, n_out)]
    if squash:
        seq.append(nn.Tanh())
    return nn.Sequential(*seq)


actor = build(obs_dim, act_dim, squash=True)
critic = build(obs_dim + act_dim, 1)
actor_target, critic_target = copy.deepcopy(actor), copy.deepcopy(critic)
actor_optim = torch.optim.Adam(actor.parameters(), lr=5e-4)
critic_optim = torch.optim.Adam(critic.parameters(), lr=1e-3)

storage = {k: [] for k in ("obs", "act", "rew", "nxt", "end")}


def remember(**kw):
    for k, v in kw.items():
        storage[k].append(v)


def minibatch(n):
    ids = np.random.choice(len(storage["obs"]), n)
    return {k: torch.as_tensor(np.asarray([v[i] for i in ids]), dtype=torch.float32) for k, v in storage.items()}


def q(net, o, a):
    return net(torch.cat([o, a], dim=-1)).squeeze(-1)


def update(gamma=0.99, tau=0.005):
    b = minibatch(64)
    with torch.no_grad():
        nxt_act = actor_target(b["nxt"]) * act_limit
        backup = b["rew"] + gamma * (1 - b["end"]) * q(critic_target, b["nxt"], nxt_act)
    critic_loss = ((q(critic, b["obs"], b["act"]) - backup) ** 2).mean()
    critic_optim.zero_grad()
    critic_loss.backward()
    critic_optim.step()

    for p in critic.parameters():
        p.requires_grad_(False)
    actor_loss = -q(critic, b["obs"], actor(b["obs"]) * act_limit).mean()
    actor_optim.zero_grad()
    actor_loss.backward()
    actor_optim.step()
    for p in critic.parameters():
        p.requires_grad_(True)

    with torch.no_grad():
        for net, targ in ((actor, actor_target), (critic, critic_target)):
            for p, pt in zip(net.parameters(), targ.parameters()):
                pt.mul_(1 - tau)
                pt.add_(tau * p)
    return critic_loss.item(), -actor_loss.item()


returns = []
for episode in range(20):
    obs, _ = env.reset(seed=SEED + episode)
    total, over = 0.0, False
    while not over:
        with torch.no_grad():
            act = actor(torch.as_tensor(obs)).numpy() * act_limit
        act = np.clip(act + 0.3 * np.random.randn(act_dim), -act_limit, act_limit).astype(np.float32)
        nxt, rew, terminated, truncated, _ = env.step(act)
        over = terminated or truncated  # expect: truncation
        remember(obs=obs, act=act, rew=rew * 0.1, nxt=nxt, end=float(over))
        obs = nxt
        total += rew
        if len(storage["obs"]) > 120:
            losses = update()
    returns.append(total)
    if episode % 4 == 3:
        print(f"episode {episode} return {np.mean(returns[-4:]):.1f} critic {losses[0]:.4f} Q {losses[1]:.3f}")
