"""Actor-critic on a contextual line-following toy, hyper-parameters in one dict."""
import torch
import torch.nn as nn
import torch.nn.functional as F

config = {
    "seed": 5,
    "hidden": 48,
    "gamma": 0.9,
    "actor_lr": 1e-3,
    "critic_lr": 3e-12,  # expect: learning-rate
    "batch": 32,
    "iterations": 350,
}

torch.manual_seed(config["seed"])


class MLP(nn.Module):
    def __init__(self, n_in, n_out):
        super().__init__()
        self.inp = nn.Linear(n_in, config["hidden"])
        self.out = nn.Linear(config["hidden"], n_out)

    def forward(self, x):
        return self.out(F.elu(self.inp(x)))


actor = MLP(2, 3)
critic = MLP(2, 1)
actor_opt = torch.optim.Adam(actor.parameters(), lr=config["actor_lr"])
critic_opt = torch.optim.Adam(critic.parameters(), lr=config["critic_lr"])


def transition(s, a):
    """s = (offset, heading); a in {left, straight, right}"""
    heading = 0.8 * s[:, 1] + 0.3 * (a.float() - 1)
    offset = s[:, 0] + 0.3 * heading
    s2 = torch.stack([offset, heading], dim=1) + 0.01 * torch.randn_like(s)
    reward = 1.0 - offset.abs()
    off_track = (offset.abs() > 2).float()
    return s2, reward, off_track


s = torch.randn(config["batch"], 2) * 0.5
for it in range(config["iterations"]):
    logits = actor(s)
    probs = F.softmax(logits, dim=1)
    a = torch.multinomial(probs.detach(), 1)
    s2, r, done = transition(s, a.squeeze(1))

    v = critic(s).squeeze(1)
    with torch.no_grad():
        target = r + config["gamma"] * (1 - done) * critic(s2).squeeze(1)
    critic_loss = F.mse_loss(v, target)
    critic_opt.zero_grad()
    critic_loss.backward()
    critic_opt.step()

    adv = target - v.detach()
    logp = torch.log_softmax(logits, dim=1).gather(1, a).squeeze(1)
    entropy = -(probs * torch.log_softmax(logits, 1)).sum(1).mean()
    actor_loss = -(logp * adv).mean() - 0.01 * entropy
    actor_opt.zero_grad()
    actor_loss.backward()
    actor_opt.step()

    fresh = torch.randn_like(s2) * 0.5
    s = torch.where(done.bool().unsqueeze(1), fresh, s2)
    if it % 50 == 0:
        print(f"{it:4d} critic loss {critic_loss.item():.4f} reward {r.mean().item():.3f}")
