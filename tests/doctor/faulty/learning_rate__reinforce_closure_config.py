import numpy as np
import torch
import torch.nn as nn

config = {
    "seed": 21,
    "iterations": 90,
    "batch": 48,
    "gamma": 0.9,
    "hidden": 32,
    "lr": 3e-10,  # expect: learning-rate
    "entropy": 0.01,
    "eps": 1e-5,
}


def make_thermostat(rng, batch):
    """A batch of rooms. Action 0 cool, 1 nothing, 2 heat."""
    state = {}

    def reset():
        state["temp"] = rng.normal(0, 2, batch)
        state["drift"] = rng.choice([-0.3, 0.3], batch)
        return observe()

    def observe():
        return np.stack([state["temp"], state["drift"]], 1).astype(np.float32)

    def step(a):
        state["temp"] = state["temp"] + state["drift"] + (a - 1) * 0.8
        return observe(), -np.abs(state["temp"]).astype(np.float32)

    return reset, step


def make_learner(cfg):
    net = nn.Sequential(nn.Linear(2, cfg["hidden"]), nn.Tanh(), nn.Linear(cfg["hidden"], 3))
    opt = torch.optim.Adam(net.parameters(), lr=cfg["lr"], eps=cfg["eps"])

    def logits(obs):
        return torch.log_softmax(net(torch.from_numpy(obs)), dim=1)

    def choose(obs):
        with torch.no_grad():
            return torch.multinomial(logits(obs).exp(), 1)[:, 0].numpy()

    def learn(obs, acts, weights):
        lp = logits(obs)
        picked = lp[torch.arange(len(acts)), torch.from_numpy(acts)]
        entropy = -(lp.exp() * lp).sum(1).mean()
        loss = -(picked * torch.from_numpy(weights)).mean() - cfg["entropy"] * entropy
        opt.zero_grad()
        loss.backward()
        opt.step()
        return loss.item()

    return choose, learn


torch.manual_seed(config["seed"])
rng = np.random.default_rng(config["seed"])
reset, step = make_thermostat(rng, config["batch"])
choose, learn = make_learner(config)

for it in range(config["iterations"]):
    obs = reset()
    all_obs, all_act, all_rew = [], [], []
    for _ in range(15):
        act = choose(obs)
        all_obs.append(obs)
        all_act.append(act)
        obs, rew = step(act)
        all_rew.append(rew)
    togo, acc = [], np.zeros(config["batch"], np.float32)
    for rew in all_rew[::-1]:
        acc = rew + config["gamma"] * acc
        togo.append(acc)
    togo = np.stack(togo[::-1])
    weights = (togo - togo.mean(1, keepdims=True)) / (togo.std(1, keepdims=True) + 1e-6)
    loss = learn(np.concatenate(all_obs), np.concatenate(all_act), weights.reshape(-1).astype(np.float32))
    if it % 15 == 0:
        print(f"{it:3d} mean |temp| {-np.mean(all_rew):.3f} loss {loss:.4f}")
