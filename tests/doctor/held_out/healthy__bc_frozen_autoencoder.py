# step 1: autoencoder on unlabelled observations, step 2: freeze it, clone the expert on top of its code
import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(0)
rng = np.random.RandomState(0)


def pixels(obs):
    """a poor man's image of the cart pole: soft one-dimensional bumps"""
    centres = np.linspace(-1, 1, 16)
    scaled = np.asarray(obs)[:, :, None] / np.array([2.4, 2.0, 0.25, 2.5])[None, :, None]
    return torch.tensor(np.exp(-8 * (scaled - centres) ** 2).reshape(len(obs), -1), dtype=torch.float32)


env = gym.make("CartPole-v1")
obs_log, act_log = [], []
o, _ = env.reset(seed=0)
while len(obs_log) < 2000:
    expert_action = int(o[2] + 0.4 * o[3] + 0.05 * o[1] > 0)
    obs_log.append(o)
    act_log.append(expert_action)
    o, _, term, trunc, _ = env.step(expert_action if rng.rand() > 0.3 else rng.randint(2))
    if term or trunc:
        o, _ = env.reset()
images, actions = pixels(obs_log), torch.tensor(act_log)

encoder = nn.Sequential(nn.Linear(64, 48), nn.GELU(), nn.Linear(48, 16))
decoder = nn.Sequential(nn.Linear(16, 48), nn.GELU(), nn.Linear(48, 64))
ae_opt = torch.optim.Adam(list(encoder.parameters()) + list(decoder.parameters()), lr=2e-3)
for i in range(400):
    x = images[rng.randint(0, 1600, 64)]
    rec = F.mse_loss(decoder(encoder(x)), x)
    ae_opt.zero_grad()
    rec.backward()
    ae_opt.step()
print("reconstruction", round(rec.item(), 5))

for p in encoder.parameters():
    p.requires_grad = False
encoder.eval()

head = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 2))
policy = nn.Sequential(encoder, head)
opt = torch.optim.AdamW([p for p in policy.parameters() if p.requires_grad], lr=3e-3, weight_decay=1e-4)
for i in range(500):
    k = rng.randint(0, 1600, 64)
    loss = F.cross_entropy(policy(images[k]), actions[k])
    opt.zero_grad()
    loss.backward()
    opt.step()
    if i % 100 == 99:
        with torch.no_grad():
            hit = (policy(images[1600:]).argmax(-1) == actions[1600:]).float().mean().item()
        print(f"{i + 1}: loss {loss.item():.3f} held-out accuracy {hit:.3f}")
