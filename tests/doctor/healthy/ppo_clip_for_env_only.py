# PPO for Pendulum. The Gaussian's raw action is kept and scored, the environment gets a clipped copy.
import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.distributions import Independent, Normal

SEED, GAMMA, LAM, CLIP = 4, 0.9, 0.9, 0.2
STEPS, ITERS, EPOCHS, BATCH = 400, 7, 6, 100

torch.manual_seed(SEED)
np.random.seed(SEED)
env = gym.make("Pendulum-v1")
max_a = env.action_space.high[0]

mu_net = nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 1))
log_std = nn.Parameter(torch.zeros(1))
v_net = nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 1))
pi_opt = torch.optim.Adam(list(mu_net.parameters()) + [log_std], lr=3e-3)
v_opt = torch.optim.Adam(v_net.parameters(), lr=1e-2)


def policy(o):
    return Independent(Normal(mu_net(o), log_std.exp()), 1)


o, _ = env.reset(seed=SEED)
for it in range(ITERS):
    O, A, LP, R, V, V2, CUT = [], [], [], [], [], [], []
    for _ in range(STEPS):
        ot = torch.as_tensor(o, dtype=torch.float32)
        with torch.no_grad():
            d = policy(ot)
            a = d.sample()
            lp = d.log_prob(a)
            v = v_net(ot)
        clipped = np.clip(a.numpy(), -max_a, max_a)
        o2, r, term, trunc, _ = env.step(clipped)
        with torch.no_grad():
            # Pendulum never terminates, the clock only cuts it
            v2 = 0.0 if term else v_net(torch.as_tensor(o2, dtype=torch.float32)).item()
        O.append(ot)
        A.append(a)
        LP.append(lp)
        R.append((r + 8.0) / 8.0)
        V.append(v.item())
        V2.append(v2)
        CUT.append(term or trunc)
        o = env.reset()[0] if term or trunc else o2

    adv, last = np.zeros(STEPS, dtype=np.float32), 0.0
    for t in reversed(range(STEPS)):
        if CUT[t]:
            last = 0.0
        last = R[t] + GAMMA * V2[t] - V[t] + GAMMA * LAM * last
        adv[t] = last
    ret = torch.from_numpy(adv + np.array(V, dtype=np.float32))
    adv = torch.from_numpy((adv - adv.mean()) / (adv.std() + 1e-8))
    O, A, LP = torch.stack(O), torch.stack(A), torch.stack(LP)

    for _ in range(EPOCHS):
        perm = np.random.permutation(STEPS)
        for k in range(0, STEPS, BATCH):
            i = perm[k:k + BATCH]
            d = policy(O[i])
            ratio = torch.exp(d.log_prob(A[i]) - LP[i])
            pi_loss = -torch.minimum(ratio * adv[i], ratio.clamp(1 - CLIP, 1 + CLIP) * adv[i]).mean()
            pi_loss = pi_loss - 1e-3 * d.entropy().mean()
            pi_opt.zero_grad()
            pi_loss.backward()
            pi_opt.step()

            v_loss = nn.functional.smooth_l1_loss(v_net(O[i]).flatten(), ret[i])
            v_opt.zero_grad()
            v_loss.backward()
            v_opt.step()
    print("iter %d  mean reward %.3f  pi %.4f  v %.4f  std %.2f"
          % (it, np.mean(R) * 8 - 8, pi_loss.item(), v_loss.item(), log_std.exp().item()))
env.close()
