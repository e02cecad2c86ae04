import gymnasium as gym
import torch
from torch import nn, optim
from torch.distributions import Categorical

torch.manual_seed(6)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.shared = nn.Linear(4, 128)
        self.actor = nn.Linear(128, 2)
        self.critic = nn.Linear(128, 1)

    def forward(self, x):
        x = torch.relu(self.shared(x))
        return self.actor(x), self.critic(x).squeeze(-1)


env = gym.make("CartPole-v1")
net = Net()
optimizer = optim.Adam(net.parameters(), lr=2e-3)
gamma = 0.99
N_STEPS = 16

obs, _ = env.reset(seed=6)
episode_len, lens = 0, []
for update in range(70):
    S, A, R, NT = [], [], [], []
    for _ in range(N_STEPS):
        with torch.no_grad():
            logits, _ = net(torch.as_tensor(obs))
        act = Categorical(logits=logits).sample()
        nxt, r, term, trunc, _ = env.step(act.item())
        S.append(torch.as_tensor(obs))
        A.append(act)
        R.append(r)
        NT.append(0.0 if term else 1.0)
        episode_len += 1
        obs = nxt
        if term or trunc:
            lens.append(episode_len)
            episode_len = 0
            obs, _ = env.reset()

    with torch.no_grad():
        _, ret = net(torch.as_tensor(obs))
    targets = []
    for r, nonterminal in zip(reversed(R), reversed(NT)):
        ret = r + gamma * ret * nonterminal
        targets.append(ret)
    targets = torch.stack(targets[::-1])

    logits, values = net(torch.stack(S))
    dist = Categorical(logits=logits)
    advantage = targets - values
    actor_loss = (dist.log_prob(torch.stack(A)) * advantage.detach()).mean()  # expect: wrong-sign
    critic_loss = advantage.pow(2).mean()
    entropy_loss = -dist.entropy().mean()
    loss = actor_loss + 0.5 * critic_loss + 0.01 * entropy_loss
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(net.parameters(), 0.5)
    optimizer.step()

    if update % 20 == 0:
        recent = lens[-10:]
        print(f"update {update}: mean length {sum(recent) / max(1, len(recent)):.1f} critic {critic_loss.item():.3f}")
