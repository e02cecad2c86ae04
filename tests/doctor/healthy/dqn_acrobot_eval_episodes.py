import random, copy
import gymnasium as gym
import torch, torch.nn as nn
from torch.nn.functional import mse_loss

random.seed(16); torch.manual_seed(16)
env, eval_env = gym.make("Acrobot-v1"), gym.make("Acrobot-v1", max_episode_steps=150)
NA = env.action_space.n

online = nn.Sequential(nn.Linear(6, 80), nn.ReLU(), nn.Linear(80, NA))
frozen = copy.deepcopy(online)
frozen.requires_grad_(False)
opt = torch.optim.Adam(online.parameters(), lr=1e-3)
buf = dict(s=torch.empty(4000, 6), a=torch.empty(4000, dtype=torch.long), r=torch.empty(4000), s2=torch.empty(4000, 6), term=torch.empty(4000))


@torch.inference_mode()
def evaluate():
    online.eval()
    s, _ = eval_env.reset(seed=99)
    total, over = 0.0, False
    while not over:
        s, r, term, trunc, _ = eval_env.step(int(torch.argmax(online(torch.from_numpy(s)))))
        total, over = total + r, term or trunc
    online.train()
    return total


s, _ = env.reset(seed=16)
for t in range(3000):
    eps = max(0.1, 1 - t / 1500)
    if random.random() < eps:
        a = random.randrange(NA)
    else:
        with torch.no_grad():
            a = online(torch.from_numpy(s)).max(0).indices.item()
    s2, r, terminated, truncated, _ = env.step(a)
    buf["s"][t], buf["a"][t], buf["r"][t], buf["s2"][t], buf["term"][t] = torch.from_numpy(s), a, r, torch.from_numpy(s2), float(terminated)
    s = env.reset()[0] if terminated or truncated else s2
    if t < 300 or t % 4:
        continue
    i = torch.randint(0, t + 1, (48,))
    not_over = buf["term"][i] == 0
    y = buf["r"][i].clone()
    y[not_over] += 0.97 * frozen(buf["s2"][i][not_over]).amax(1)
    loss = mse_loss(online(buf["s"][i])[torch.arange(48), buf["a"][i]], y)
    opt.zero_grad(set_to_none=True)
    loss.backward()
    opt.step()
    if t % 200 == 0:
        frozen.load_state_dict(online.state_dict())
    if t % 1000 == 0:
        print(t, "loss", round(loss.item(), 4), "eval return", evaluate())
