import gymnasium as gym, numpy as np, torch, copy
import torch.nn as nn, torch.nn.functional as F
torch.manual_seed(100); np.random.seed(100)

env = gym.make('MountainCarContinuous-v0', max_episode_steps=200)
state_dim = env.observation_space.shape[0]
scale = np.array([1.0, 15.0], dtype=np.float32)

class Actor(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(state_dim, 64); self.fc2 = nn.Linear(64, 1)
        nn.init.uniform_(self.fc2.weight, -3e-3, 3e-3)
    def forward(self, s): return torch.tanh(self.fc2(F.relu(self.fc1(s))))

class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(state_dim, 64); self.fc2 = nn.Linear(65, 64); self.fc3 = nn.Linear(64, 1)
    def forward(self, s, a):
        h = F.relu(self.fc1(s))
        return self.fc3(F.relu(self.fc2(torch.cat([h, a], 1))))

class OUNoise:
    def __init__(self): self.x = 0.0
    def __call__(self):
        self.x += -0.1 * self.x + 0.25 * np.random.randn()
        return self.x

actor, critic = Actor(), Critic()
actor_target, critic_target = copy.deepcopy(actor), copy.deepcopy(critic)
a_optim = torch.optim.Adam(actor.parameters(), lr=5e-4)
c_optim = torch.optim.Adam(critic.parameters(), lr=1e-3, weight_decay=1e-4)
replay, noise = [], OUNoise()
TAU, GAMMA = 0.01, 0.97

def train_step():
    batch = [replay[i] for i in np.random.randint(len(replay), size=64)]
    s, a, r, s2, d = [torch.tensor(np.array(c), dtype=torch.float32) for c in zip(*batch)]
    with torch.no_grad():
        y = r.view(-1, 1) + GAMMA * (1 - d.view(-1, 1)) * critic_target(s2, actor_target(s2))
    c_loss = F.mse_loss(critic(s, a), y)
    c_optim.zero_grad(); c_loss.backward(); c_optim.step()
    a_loss = critic(s, actor(s)).mean()  # expect: wrong-sign
    a_optim.zero_grad(); a_loss.backward(); a_optim.step()
    for net, tgt in [(actor, actor_target), (critic, critic_target)]:
        for p, tp in zip(net.parameters(), tgt.parameters()):
            tp.data.copy_(TAU * p.data + (1 - TAU) * tp.data)

for ep in range(9):
    s, _ = env.reset(seed=ep); s = s * scale; total = 0
    while True:
        with torch.no_grad():
            a = actor(torch.from_numpy(s)[None])[0].numpy()
        a = np.clip(a + noise(), -1, 1).astype(np.float32)
        s2, r, term, trunc, _ = env.step(a)
        s2 = s2 * scale
        # energy as a hint
        replay.append((s, a, r / 100 + abs(s2[1]), s2, term))
        s = s2; total += r / 100 + abs(s2[1])
        if len(replay) > 150 and len(replay) % 2 == 0: train_step()
        if term or trunc: break
    print('episode', ep, 'shaped return', round(float(total), 2))
