import copy
import random
import torch
import torch.nn as nn

# learned dynamics, pathwise policy gradient through imagined rollouts, exploration with a noisy copy of the actor
random.seed(0)
torch.manual_seed(0)
DT, HORIZON, GAMMA = 0.1, 5, 0.9


def true_step(s, u):
    x, v = s
    v = v + DT * (2 * max(-1.0, min(1.0, u)) - 0.4 * v - 0.5 * x)
    return [x + DT * v, v]


def reward_fn(s, u):
    return -(s[..., 0] - 0.5) ** 2 - 0.1 * s[..., 1] ** 2 - 0.01 * u[..., 0] ** 2


def net(i, o):
    return nn.Sequential(nn.Linear(i, 48), nn.SiLU(), nn.Linear(48, o))


model = nn.ModuleList([net(3, 2) for _ in range(3)])
actor, critic = net(2, 2), net(2, 1)
critic_slow = copy.deepcopy(critic)
opts = {
    "model": torch.optim.Adam(model.parameters(), lr=3e-3),
    "actor": torch.optim.Adam(actor.parameters(), lr=1e-3),
    "critic": torch.optim.Adam(critic.parameters(), lr=3e-3),
}


def pi(policy, s):
    mean, raw = policy(s).chunk(2, -1)
    std = 0.05 + 0.3 * torch.sigmoid(raw)
    return torch.distributions.Normal(mean, std)


def explore(buffer, length=40):
    noisy = copy.deepcopy(actor)
    with torch.no_grad():
        for p in noisy.parameters():
            p.add_(0.03 * torch.randn_like(p))
        s, total = [random.uniform(-1, 1), 0.0], 0.0
        for _ in range(length):
            u = torch.tanh(pi(noisy, torch.tensor(s)).sample()).item()
            s2 = true_step(s, u)
            buffer.append((s, [u], s2))
            total += reward_fn(torch.tensor(s2), torch.tensor([u])).item()
            s = s2
    return total


def fit_model(buffer):
    losses = []
    for member in model:
        s, u, s2 = map(torch.tensor, zip(*random.choices(buffer, k=64)))
        losses.append(((member(torch.cat([s, u], 1)) - (s2 - s) / DT) ** 2).mean())
    loss = torch.stack(losses).sum()
    opts["model"].zero_grad()
    loss.backward()
    opts["model"].step()
    return loss.item() / len(model)


def imagine(buffer):
    s = torch.tensor([b[0] for b in random.choices(buffer, k=48)])
    start, ret, member = s, 0.0, random.choice(model)
    for k in range(HORIZON):
        u = torch.tanh(pi(actor, s).rsample())
        s = s + DT * member(torch.cat([s, u], 1))
        ret = ret + GAMMA ** k * reward_fn(s, u)
    return start, ret + GAMMA ** HORIZON * critic_slow(s).squeeze(1)


buffer, wm = [], 0.0
for it in range(20):
    total = explore(buffer)
    for j in range(12):
        wm = fit_model(buffer)
        start, ret = imagine(buffer)
        # the critic's copy and the model only carry the gradient, their own grads are thrown away
        actor_loss = -ret.mean()
        opts["actor"].zero_grad()
        actor_loss.backward()
        nn.utils.clip_grad_norm_(actor.parameters(), 5.0)
        opts["actor"].step()
        critic_slow.zero_grad(set_to_none=True)

        critic_loss = (critic(start).squeeze(1) - ret.detach()).pow(2).mean()
        opts["critic"].zero_grad()
        critic_loss.backward()
        opts["critic"].step()
        for p, q in zip(critic.parameters(), critic_slow.parameters()):
            q.data.mul_(0.95).add_(p.data, alpha=0.05)
    if it % 4 == 3:
        print(f"iteration {it + 1} return {total:.2f} model {wm:.5f} critic {critic_loss.item():.4f}")
