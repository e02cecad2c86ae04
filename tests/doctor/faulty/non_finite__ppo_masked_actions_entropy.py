"""PPO with illegal-action masking: stack coloured discs, a full peg is illegal."""
import torch
import torch.nn as nn

torch.manual_seed(23)
PEGS, CAP, NENV, T = 4, 3, 16, 12


class Pegs:
    def __init__(self):
        self.fill = torch.zeros(NENV, PEGS)
        self.disc = torch.randint(0, PEGS, (NENV,))

    def obs(self):
        return torch.cat([self.fill / CAP, nn.functional.one_hot(self.disc, PEGS).float()], 1)

    def legal(self):
        return (self.fill < CAP).float()

    def step(self, a):
        rew = (a == self.disc).float()
        self.fill[torch.arange(NENV), a] += 1
        done = self.fill.sum(1) >= PEGS * CAP - 1
        self.fill[done] = 0
        self.disc = torch.randint(0, PEGS, (NENV,))
        return rew, done.float()


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.base = nn.Sequential(nn.Linear(2 * PEGS, 64), nn.ReLU())
        self.pi, self.v = nn.Linear(64, PEGS), nn.Linear(64, 1)

    def forward(self, o, mask):
        h = self.base(o)
        w = torch.exp(self.pi(h).clamp(-10, 10)) * mask
        return w / w.sum(-1, keepdim=True), self.v(h).squeeze(-1)


def entropy(probs):
    return -(probs * torch.log(probs)).sum(-1)  # expect: non-finite


env, model = Pegs(), Model()
opt = torch.optim.Adam(model.parameters(), lr=1e-3)
for it in range(40):
    buf = {k: [] for k in ("o", "m", "a", "lp", "r", "d", "v")}
    with torch.no_grad():
        for _ in range(T):
            o, m = env.obs(), env.legal()
            p, v = model(o, m)
            a = torch.multinomial(p.nan_to_num(0.25), 1).squeeze(1)
            r, d = env.step(a)
            for k, x in zip(buf, (o, m, a, p.gather(1, a[:, None]).squeeze(1).log(), r, d, v)):
                buf[k].append(x)
        ret = model(env.obs(), env.legal())[1]
        rets = []
        for r, d in zip(buf["r"][::-1], buf["d"][::-1]):
            ret = r + 0.9 * (1 - d) * ret
            rets.append(ret)
    rets = torch.cat(rets[::-1])
    B = {k: torch.cat(x) for k, x in buf.items()}
    adv = rets - B["v"]
    adv = (adv - adv.mean()) / (adv.std() + 1e-8)
    for epoch in range(3):
        p, v = model(B["o"], B["m"])
        ratio = (p.gather(1, B["a"][:, None]).squeeze(1).log() - B["lp"]).exp()
        pg = -torch.min(ratio * adv, ratio.clamp(0.8, 1.2) * adv).mean()
        loss = pg + 0.5 * (v - rets).pow(2).mean() - 0.01 * entropy(p).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
    if it % 5 == 0:
        print(it, "reward", B["r"].mean().item(), "loss", loss.item())
