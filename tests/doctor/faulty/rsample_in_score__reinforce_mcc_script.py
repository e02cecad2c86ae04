import gymnasium as gym
import torch
import torch.nn as nn

torch.manual_seed(0)
env = gym.make("MountainCarContinuous-v0", max_episode_steps=120)

net = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 1))
logstd = nn.Parameter(torch.tensor([-0.3]))
optim = torch.optim.RMSprop([*net.parameters(), logstd], lr=2e-3)
scale = torch.tensor([1.0, 15.0])

avg = 0.0
for ep in range(45):
    s, _ = env.reset(seed=ep)
    log_probs = []
    rewards = []
    while True:
        mu = net(torch.from_numpy(s) * scale)
        dist = torch.distributions.Normal(mu, logstd.clamp(-2.0, 0.5).exp())
        action = dist.rsample()  # expect: rsample-in-score
        log_probs.append(dist.log_prob(action).sum())
        # the environment clips internally
        s, r, terminated, truncated, _ = env.step(action.detach().numpy())
        # shaping: speed is good
        rewards.append(r + 100.0 * abs(float(s[1])))
        if terminated or truncated:
            break
    G, out = 0.0, []
    for r in reversed(rewards):
        G = r + 0.97 * G
        out.append(G)
    out.reverse()
    ret = torch.tensor(out)
    ret = (ret - ret.mean()) / (ret.std() + 1e-8)
    loss = -(torch.stack(log_probs) * ret).mean()
    optim.zero_grad()
    loss.backward()
    optim.step()
    avg = 0.9 * avg + 0.1 * sum(rewards)
    if ep % 10 == 0:
        print("episode", ep, "return %.2f" % sum(rewards), "running %.2f" % avg)
