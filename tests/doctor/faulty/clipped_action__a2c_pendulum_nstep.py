import gymnasium as gym
import torch as T
import torch.nn as nn

T.manual_seed(2)


class GaussianPolicy(nn.Module):
    def __init__(self, n_in, n_act, bound):
        super().__init__()
        self.bound = bound
        self.l1 = nn.Linear(n_in, 64)
        self.mu = nn.Linear(64, n_act)
        self.log_sigma = nn.Parameter(T.zeros(n_act) + 0.5)

    def dist(self, s):
        h = T.tanh(self.l1(s))
        return T.distributions.Normal(self.mu(h), self.log_sigma.clamp(-2, 1).exp())

    def choose(self, s):
        d = self.dist(s)
        a = d.sample()
        a = T.clamp(a, -self.bound, self.bound)  # expect: clipped-action
        return a, d.log_prob(a).sum(-1), d.entropy().sum(-1)


env = gym.make("Pendulum-v1")
policy = GaussianPolicy(3, 1, 2.0)
critic = nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 1))
p_opt = T.optim.Adam(policy.parameters(), lr=1e-3)
c_opt = T.optim.Adam(critic.parameters(), lr=2e-3)
GAMMA, NSTEP = 0.95, 20

s, _ = env.reset(seed=2)
score, scores = 0, []
for upd in range(150):
    logps, vs, rs, ents = [], [], [], []
    cut = False
    for _ in range(NSTEP):
        st = T.tensor(s, dtype=T.float32)
        a, lp, ent = policy.choose(st)
        s, r, term, trunc, _ = env.step(a.numpy())
        score += r
        logps.append(lp); vs.append(critic(st).squeeze()); ents.append(ent)
        rs.append((r + 8) / 8)
        if trunc:
            cut = True
            break
    # Pendulum never terminates: always bootstrap
    with T.no_grad():
        R = critic(T.tensor(s, dtype=T.float32)).squeeze()
    if cut:
        scores.append(score); score = 0
        s, _ = env.reset()
    targets = []
    for r in rs[::-1]:
        R = r + GAMMA * R
        targets.append(R)
    targets = T.stack(targets[::-1])
    V = T.stack(vs)
    adv = targets - V.detach()
    p_loss = -(T.stack(logps) * adv).mean() - 1e-3 * T.stack(ents).mean()
    c_loss = nn.functional.mse_loss(V, targets)
    p_opt.zero_grad(); p_loss.backward(); p_opt.step()
    c_opt.zero_grad(); c_loss.backward(); c_opt.step()
    if upd % 50 == 49:
        print(upd + 1, "last scores", [int(x) for x in scores[-4:]])
