import gymnasium as gym
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Categorical

GAMMA = 0.98


class Net(nn.Module):
    def __init__(self, n_out):
        super().__init__()
        self.l1 = nn.Linear(4, 48)
        self.l2 = nn.Linear(48, n_out)

    def forward(self, x):
        return self.l2(F.relu(self.l1(x)))


def td_step(actor, critic, opt, s, a_dist, a, r, s2, terminated):
    value = critic(s).squeeze(-1)
    with torch.no_grad():
        bootstrap = torch.zeros(()) if terminated else critic(s2).squeeze(-1)
    target = r + GAMMA * bootstrap
    advantage = target - value  # expect: target-not-detached
    critic_loss = F.mse_loss(value, target)
    actor_loss = -a_dist.log_prob(a) * advantage
    loss = actor_loss + 0.5 * critic_loss - 0.005 * a_dist.entropy()
    opt.zero_grad()
    loss.backward()
    opt.step()
    return critic_loss.detach(), actor_loss.detach()


def main(seed=2, episodes=50):
    torch.manual_seed(seed)
    env = gym.make("CartPole-v1")
    actor, critic = Net(2), Net(1)
    opt = torch.optim.Adam([
        {"params": actor.parameters(), "lr": 1e-3},
        {"params": critic.parameters(), "lr": 3e-3},
    ])
    lengths = []
    for ep in range(episodes):
        obs, _ = env.reset(seed=seed + ep)
        s, done, n = torch.as_tensor(obs), False, 0
        while not done:
            d = Categorical(logits=actor(s))
            a = d.sample()
            obs, r, terminated, truncated, _ = env.step(a.item())
            s2 = torch.as_tensor(obs)
            c, al = td_step(actor, critic, opt, s, d, a, r, s2, terminated)
            s, n = s2, n + 1
            done = terminated or truncated
        lengths.append(n)
        if (ep + 1) % 10 == 0:
            print(f"ep {ep + 1:3d}  len {sum(lengths[-10:]) / 10:.1f}  critic loss {c.item():.3f}  actor loss {al.item():.3f}")


if __name__ == "__main__":
    main()
