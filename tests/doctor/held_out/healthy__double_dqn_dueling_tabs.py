import collections
import random

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

cfg = dict(seed=31, frames=1800, batch=64, gamma=0.98, lr=1e-3, sync=75, warmup=200)
random.seed(cfg["seed"])
torch.manual_seed(cfg["seed"])

class Dueling(nn.Module):
	def __init__(self, n_obs, n_act):
		super().__init__()
		self.feat = nn.Sequential(nn.Linear(n_obs, 64), nn.ReLU())
		self.adv = nn.Linear(64, n_act)
		self.val = nn.Linear(64, 1)

	def forward(self, x):
		z = self.feat(x)
		adv = self.adv(z)
		return self.val(z) + adv - adv.mean(dim=1, keepdim=True)

env = gym.make("CartPole-v1")
online, target = Dueling(4, 2), Dueling(4, 2)
target.load_state_dict(online.state_dict())
for p in target.parameters():
	p.requires_grad_(False)
opt = torch.optim.Adam(online.parameters(), lr=cfg["lr"])
memory = collections.deque(maxlen=20000)

def greedy(obs):
	with torch.no_grad():
		return online(torch.as_tensor(obs).unsqueeze(0)).argmax(1).item()

def optimise():
	obs, act, rew, nxt, term = zip(*random.sample(memory, cfg["batch"]))
	obs, nxt = torch.as_tensor(np.stack(obs)), torch.as_tensor(np.stack(nxt))
	act = torch.tensor(act).unsqueeze(1)
	rew = torch.tensor(rew, dtype=torch.float32).unsqueeze(1)
	alive = 1.0 - torch.tensor(term, dtype=torch.float32).unsqueeze(1)
	# double DQN: the online net selects, the target net evaluates
	choice = online(nxt).argmax(dim=1, keepdim=True)
	y = rew + cfg["gamma"] * alive * target(nxt).gather(1, choice)
	loss = F.smooth_l1_loss(online(obs).gather(1, act), y)
	opt.zero_grad()
	loss.backward()
	opt.step()
	return loss.item()

obs, _ = env.reset(seed=cfg["seed"])
lens, n, loss = [], 0, 0.0
for frame in range(cfg["frames"]):
	eps = max(0.05, 1 - frame / 900)
	act = random.randint(0, 1) if random.random() < eps else greedy(obs)
	nxt, rew, term, trunc, _ = env.step(act)
	memory.append((obs, act, rew, nxt, term))
	obs = nxt
	n += 1
	if term or trunc:
		lens.append(n)
		n = 0
		obs, _ = env.reset()
	if frame >= cfg["warmup"]:
		loss = optimise()
	if frame % cfg["sync"] == 0:
		target.load_state_dict(online.state_dict())
	if frame % 300 == 299:
		print("frame", frame + 1, "length", np.mean(lens[-10:]), "loss", round(loss, 4))
