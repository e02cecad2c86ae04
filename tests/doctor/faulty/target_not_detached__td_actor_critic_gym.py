import argparse

import gymnasium as gym
import torch
import torch.nn as nn


def build(sizes):
    mods = []
    for i, (a, b) in enumerate(zip(sizes[:-1], sizes[1:])):
        mods.append(nn.Linear(a, b))
        if i < len(sizes) - 2:
            mods.append(nn.Tanh())
    return nn.Sequential(*mods)


def td_errors(critic, obs, rew, nxt, term, gamma):
    with torch.no_grad():
        target = rew + gamma * (1.0 - term) * critic(nxt).squeeze(-1)
    value = critic(obs).squeeze(-1)
    return target, value


def parse():
    p = argparse.ArgumentParser()
    p.add_argument("--steps", type=int, default=900)
    p.add_argument("--gamma", type=float, default=0.98)
    p.add_argument("--lr", type=float, default=1e-3)
    p.add_argument("--n-step", type=int, default=5, help="transitions per update")
    p.add_argument("--seed", type=int, default=0)
    return p.parse_args()


def main():
    args = parse()
    torch.manual_seed(args.seed)
    env = gym.make("CartPole-v1")
    env.action_space.seed(args.seed)
    actor, critic = build([4, 64, 2]), build([4, 64, 1])
    opt = torch.optim.Adam(list(actor.parameters()) + list(critic.parameters()), lr=args.lr)
    obs, _ = env.reset(seed=args.seed)
    chunk, ep_ret, history = [], 0.0, []
    for step in range(args.steps):
        o = torch.as_tensor(obs, dtype=torch.float32)
        with torch.no_grad():
            a = torch.distributions.Categorical(logits=actor(o)).sample()
        nxt, r, term, trunc, _ = env.step(a.item())
        chunk.append((o, a, torch.tensor(float(r)), torch.as_tensor(nxt, dtype=torch.float32), torch.tensor(float(term))))
        ep_ret += r
        obs = nxt
        if term or trunc:
            history.append(ep_ret)
            ep_ret = 0.0
            obs, _ = env.reset()
        if len(chunk) < args.n_step:
            continue
        O, A, R, O2, D = (torch.stack(c) for c in zip(*chunk))
        chunk.clear()
        target, value = td_errors(critic, O, R, O2, D, args.gamma)
        delta = target - value  # expect: target-not-detached
        log_pi = torch.log_softmax(actor(O), dim=-1).gather(1, A[:, None]).squeeze(1)
        actor_loss = -(log_pi * delta).mean()
        critic_loss = 0.5 * (value - target).pow(2).mean()
        opt.zero_grad()
        (actor_loss + critic_loss).backward()
        opt.step()
        if step % 300 == 299:
            tail = history[-10:]
            print(step + 1, "return", sum(tail) / max(1, len(tail)), "td", critic_loss.item())


if __name__ == "__main__":
    main()
