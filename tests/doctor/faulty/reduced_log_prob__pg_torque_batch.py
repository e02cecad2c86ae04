import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.distributions.normal import Normal

# Vanilla policy gradient in the style of the spinning up intro, continuous torque on an arm


def mlp(sizes, activation=nn.Tanh, output_activation=nn.Identity):
    layers = []
    for j in range(len(sizes) - 1):
        act = activation if j < len(sizes) - 2 else output_activation
        layers += [nn.Linear(sizes[j], sizes[j + 1]), act()]
    return nn.Sequential(*layers)


class Arm:
    def reset(self):
        self.q = np.random.uniform(-1, 1, 2)
        self.t = 0
        return self.q.astype(np.float32)

    def step(self, u):
        self.q = self.q + 0.3 * np.clip(u, -1, 1)
        self.t += 1
        return self.q.astype(np.float32), -float(np.sum(self.q ** 2)), self.t >= 12


def train(lr=1e-2, epochs=40, batch_size=360):
    env = Arm()
    mu_net = mlp([2, 32, 2])
    log_std = nn.Parameter(-0.7 * torch.ones(2))
    optimizer = torch.optim.Adam([*mu_net.parameters(), log_std], lr=lr)

    def get_policy(obs):
        return Normal(mu_net(obs), log_std.exp())

    def get_action(obs):
        with torch.no_grad():
            return get_policy(obs).sample().numpy()

    def compute_loss(obs, act, weights):
        logp = get_policy(obs).log_prob(act).sum()  # expect: reduced-log-prob
        return -(logp * weights).mean()

    for i in range(epochs):
        obs_buf, act_buf, w_buf, rets = [], [], [], []
        while len(obs_buf) < batch_size:
            o, fin, rews = env.reset(), False, []
            while not fin:
                obs_buf.append(o)
                a = get_action(torch.as_tensor(o))
                act_buf.append(a)
                o, r, fin = env.step(a)
                rews.append(r)
            rtg = np.cumsum(rews[::-1])[::-1]
            w_buf.extend(rtg.tolist())
            rets.append(sum(rews))
        weights = torch.tensor(w_buf)
        weights = (weights - weights.mean()) / weights.std()
        loss = compute_loss(torch.as_tensor(np.array(obs_buf)), torch.as_tensor(np.array(act_buf)), weights)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if i % 8 == 0:
            print("epoch: %3d \t loss: %.4f \t return: %.3f" % (i, loss.item(), np.mean(rets)))


if __name__ == "__main__":
    torch.manual_seed(0)
    np.random.seed(0)
    train()
