# REINFORCE with a learned baseline, "catch" on a 6x5 board.
# Policy and baseline share an encoder; each head has its own optimizer (the encoder belongs to the first one).
import numpy as np
import torch
import torch.nn as nn

H, W = 6, 5
rng = np.random.default_rng(0)
torch.manual_seed(0)


def play_batch(policy, n):
    """n boards in parallel, one ball falls in each; +1 if it is caught, -1 otherwise."""
    ball_x = rng.integers(0, W, n)
    wind = rng.integers(-1, 2, n)
    paddle = np.full(n, W // 2)
    observations, actions = [], []
    for y in range(H):
        board = np.zeros((n, H, W), dtype=np.float32)
        board[np.arange(n), y, ball_x] = 1.0
        board[np.arange(n), H - 1, paddle] += 0.5
        obs = board.reshape(n, -1)
        with torch.no_grad():
            act = policy(torch.from_numpy(obs)).sample().numpy()
        observations.append(obs)
        actions.append(act)
        paddle = np.clip(paddle + act - 1, 0, W - 1)
        if y % 2 == 1:
            ball_x = np.clip(ball_x + wind, 0, W - 1)
    reward = np.where(ball_x == paddle, 1.0, -1.0)
    return np.stack(observations), np.stack(actions), reward


encoder = nn.Sequential(nn.Linear(H * W, 64), nn.ReLU())
pi_head = nn.Linear(64, 3)
v_head = nn.Linear(64, 1)

pi_opt = torch.optim.Adam([*encoder.parameters(), *pi_head.parameters()], lr=5e-3)
v_opt = torch.optim.Adam(v_head.parameters(), lr=3e-3)


def policy(obs):
    return torch.distributions.Categorical(logits=pi_head(encoder(obs)))


for update in range(1, 201):
    obs, act, reward = play_batch(policy, 48)
    obs_t = torch.from_numpy(obs).reshape(-1, H * W)
    act_t = torch.from_numpy(act).reshape(-1)
    returns = torch.tensor(np.tile(reward, (H, 1)), dtype=torch.float32).reshape(-1)   # gamma = 1, paid at the end

    z = encoder(obs_t)
    baseline = v_head(z).squeeze(-1)
    dist = torch.distributions.Categorical(logits=pi_head(z))

    advantage = returns - baseline.detach()
    pi_loss = -(dist.log_prob(act_t) * advantage).mean() - 0.01 * dist.entropy().mean()
    v_loss = 0.5 * (returns - baseline).pow(2).mean()

    pi_opt.zero_grad()
    v_opt.zero_grad()
    pi_loss.backward(retain_graph=True)
    v_loss.backward()
    pi_opt.step()
    v_opt.step()

    if update % 40 == 0:
        print(f"{update:4d} caught {np.mean(reward > 0):.2f} pi {pi_loss.item():+.3f} v {v_loss.item():.3f}")
