"""Behaviour cloning with K experts: a router chooses one skill per state."""
import torch
import torch.nn as nn
import torch.nn.functional as F


def make_dataset(n=1500, seed=11):
    g = torch.Generator().manual_seed(seed)
    s = torch.randn(n, 3, generator=g)
    region = (s[:, 0] > 0).long() + 2 * (s[:, 1] > 0).long()
    gains = torch.tensor([[1.0, -1.0, 0.5], [-0.5, 1.0, 1.0], [0.3, 0.3, -1.5], [-1.0, -1.0, 0.0]])
    a = (gains[region] * s).sum(-1, keepdim=True) + 0.02 * torch.randn(n, 1, generator=g)
    return s, a


class SkillPolicy(nn.Module):
    def __init__(self, obs_dim, act_dim, n_skills=4, hidden=32):
        super().__init__()
        self.n_skills = n_skills
        self.router = nn.Sequential(nn.Linear(obs_dim, hidden), nn.ReLU(), nn.Linear(hidden, n_skills))
        self.weight = nn.ParameterList([nn.Parameter(0.3 * torch.randn(obs_dim, act_dim)) for _ in range(n_skills)])
        self.bias = nn.ParameterList([nn.Parameter(torch.zeros(act_dim)) for _ in range(n_skills)])

    def forward(self, obs):
        logits = self.router(obs)
        gumbel = -torch.log(-torch.log(torch.rand_like(logits).clamp(1e-6, 1 - 1e-6)))
        scores = logits + gumbel if self.training else logits
        choice = scores.argmax(dim=-1)  # expect: graph-cut
        gate = F.one_hot(choice, self.n_skills).to(obs.dtype)
        proposals = torch.stack([obs @ w + b for w, b in zip(self.weight, self.bias)], dim=1)
        return torch.einsum("bk,bka->ba", gate, proposals)


def main():
    torch.manual_seed(11)
    states, actions = make_dataset()
    policy = SkillPolicy(3, 1)
    opt = torch.optim.Adam(policy.parameters(), lr=3e-3)
    sched = torch.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=20)
    for epoch in range(20):
        policy.train()
        for idx in torch.randperm(len(states)).split(100):
            loss = F.mse_loss(policy(states[idx]), actions[idx])
            opt.zero_grad(set_to_none=True)
            loss.backward()
            opt.step()
        sched.step()
        if (epoch + 1) % 5 == 0:
            policy.eval()
            with torch.no_grad():
                print(epoch + 1, "eval mse", F.mse_loss(policy(states), actions).item())


if __name__ == "__main__":
    main()
