# actor-critic for a card game where some moves are not allowed (masked logits)
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(3)
N_CARDS = 6


class MaskedActor(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2 * N_CARDS, 64), nn.ReLU(), nn.Linear(64, N_CARDS))

    def forward(self, obs, legal):
        logits = self.net(obs)
        logits = logits.masked_fill(~legal, -1e9)
        return F.softmax(logits, dim=-1)


def deal(n, easy):
    """cards in hand and their values; early in the curriculum every card is legal"""
    values = torch.rand(n, N_CARDS)
    legal = torch.ones(n, N_CARDS, dtype=torch.bool)
    if not easy:
        legal = torch.rand(n, N_CARDS) < 0.7
        legal[:, 0] = True
    return values, legal


actor = MaskedActor()
critic = nn.Sequential(nn.Linear(2 * N_CARDS, 64), nn.ReLU(), nn.Linear(64, 1))
opt = torch.optim.Adam([
    {"params": actor.parameters(), "lr": 1e-3},
    {"params": critic.parameters(), "lr": 2e-3},
])

for it in range(150):
    values, legal = deal(64, easy=it < 60)
    obs = torch.cat([values, legal.float()], dim=1)
    probs = actor(obs, legal)
    with torch.no_grad():
        action = torch.multinomial(probs, 1)
        reward = values.gather(1, action).squeeze(1)

    chosen = probs.gather(1, action).squeeze(1)
    baseline = critic(obs).squeeze(1)
    advantage = reward - baseline.detach()
    entropy = -(probs * torch.log(probs)).sum(dim=1).mean()  # expect: non-finite
    actor_loss = -(torch.log(chosen + 1e-8) * advantage).mean() - 0.01 * entropy
    critic_loss = F.mse_loss(baseline, reward)
    opt.zero_grad()
    (actor_loss + critic_loss).backward()
    opt.step()
    if it % 25 == 0:
        print(it, "reward", reward.mean().item(), "actor", actor_loss.item(), "critic", critic_loss.item())
