import gymnasium as gym
import torch
from torch import nn
from torch.distributions import Categorical

N_STEPS, GAMMA, UPDATES = 32, 0.99, 60


class Actor(nn.Module):
    def __init__(self, obs_dim, n_actions, hidden=64):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(obs_dim, hidden), nn.Tanh())
        self.mixer = nn.Linear(hidden, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.head = nn.Linear(hidden, n_actions)

    def forward(self, obs):
        h = self.encoder(obs)
        h = torch.tanh(self.mixer(h))
        h = self.norm(h.detach())  # expect: graph-cut
        return Categorical(logits=self.head(h))


class Critic(nn.Module):
    def __init__(self, obs_dim, hidden=64):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(obs_dim, hidden), nn.Tanh(), nn.Linear(hidden, 1))

    def forward(self, obs):
        return self.net(obs).squeeze(-1)


def main():
    torch.manual_seed(1)
    env = gym.make("CartPole-v1")
    actor, critic = Actor(4, 2), Critic(4)
    opt_actor = torch.optim.Adam(actor.parameters(), lr=1e-3)
    opt_critic = torch.optim.Adam(critic.parameters(), lr=3e-3)

    obs, _ = env.reset(seed=1)
    ep_return, finished = 0.0, []
    for update in range(UPDATES):
        states, actions, rewards, next_states, terms, ends = [], [], [], [], [], []
        for _ in range(N_STEPS):
            x = torch.as_tensor(obs)
            with torch.no_grad():
                a = actor(x).sample()
            nxt, r, terminated, truncated, _ = env.step(a.item())
            states.append(x)
            actions.append(a)
            rewards.append(r)
            next_states.append(torch.as_tensor(nxt))
            terms.append(float(terminated))
            ends.append(terminated or truncated)
            ep_return += r
            obs = nxt
            if ends[-1]:
                finished.append(ep_return)
                ep_return = 0.0
                obs, _ = env.reset()

        states, actions = torch.stack(states), torch.stack(actions)
        with torch.no_grad():
            next_values = critic(torch.stack(next_states))
        returns = torch.zeros(N_STEPS)
        running = next_values[-1] * (1 - terms[-1])
        for t in reversed(range(N_STEPS)):
            if ends[t]:
                running = next_values[t] * (1 - terms[t])
            running = rewards[t] + GAMMA * running
            returns[t] = running

        values = critic(states)
        critic_loss = (returns - values).pow(2).mean()
        opt_critic.zero_grad()
        critic_loss.backward()
        opt_critic.step()

        dist = actor(states)
        adv = (returns - values).detach()
        adv = (adv - adv.mean()) / (adv.std() + 1e-8)
        actor_loss = -(dist.log_prob(actions) * adv).mean() - 0.01 * dist.entropy().mean()
        opt_actor.zero_grad()
        actor_loss.backward()
        opt_actor.step()
        if update % 20 == 19:
            print(update + 1, sum(finished[-10:]) / max(1, len(finished[-10:])))


if __name__ == "__main__":
    main()
