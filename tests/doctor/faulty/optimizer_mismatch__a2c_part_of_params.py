import gymnasium as gym
import torch
import torch.nn as nn
import torch.nn.functional as F

GAMMA = 0.99
T = 24


class SharedAC(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 64), nn.ReLU())
        self.pi = nn.Linear(64, 2)
        self.v = nn.Linear(64, 1)

    def forward(self, x):
        h = self.body(x)
        return self.pi(h), self.v(h).squeeze(-1)


torch.manual_seed(31)
env = gym.make("CartPole-v1")
net = SharedAC()
optimizer = torch.optim.RMSprop(list(net.body.parameters()) + list(net.pi.parameters()), lr=1e-3, alpha=0.99)  # expect: optimizer-mismatch

state = torch.from_numpy(env.reset(seed=31)[0])
lengths, length = [], 0
for update in range(80):
    logps, entropies, values, targets_in = [], [], [], []
    for _ in range(T):
        logits, value = net(state)
        logp = F.log_softmax(logits, dim=-1)
        a = torch.multinomial(logp.detach().exp(), 1).item()
        nxt, r, terminated, truncated, _ = env.step(a)
        nxt = torch.from_numpy(nxt)
        length += 1
        logps.append(logp[a])
        entropies.append(-(logp * logp.exp()).sum())
        values.append(value)
        targets_in.append((r, nxt, terminated, terminated or truncated))
        state = nxt
        if terminated or truncated:
            lengths.append(length)
            length = 0
            state = torch.from_numpy(env.reset()[0])

    R, targets = None, []
    for r, nxt, terminated, ended in reversed(targets_in):
        if terminated:
            R = 0.0
        elif ended or R is None:
            with torch.no_grad():
                R = net(nxt)[1].item()
        R = r + GAMMA * R
        targets.append(R)
    targets = torch.tensor(targets[::-1])
    values = torch.stack(values)
    adv = (targets - values).detach()
    policy_loss = -(torch.stack(logps) * adv).mean()
    value_loss = F.mse_loss(values, targets)
    loss = policy_loss + 0.25 * value_loss - 0.01 * torch.stack(entropies).mean()

    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if update % 20 == 19:
        recent = lengths[-20:]
        print(f"update {update + 1}: mean length {sum(recent) / len(recent):.1f}, value loss {value_loss.item():.2f}")
