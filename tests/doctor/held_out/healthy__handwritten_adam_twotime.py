import numpy as np
import torch

torch.manual_seed(9)
rng = np.random.default_rng(9)


class MyAdam:
    """Adam as in the paper, over a flat list of leaf tensors"""

    def __init__(self, params, lr, b1=0.9, b2=0.999):
        self.params, self.lr, self.b1, self.b2, self.t = list(params), lr, b1, b2, 0
        self.m = [torch.zeros_like(p) for p in self.params]
        self.v = [torch.zeros_like(p) for p in self.params]

    def step_from(self, loss):
        grads = torch.autograd.grad(loss, self.params)
        self.t += 1
        with torch.no_grad():
            for p, g, m, v in zip(self.params, grads, self.m, self.v):
                m.mul_(self.b1).add_(g, alpha=1 - self.b1)
                v.mul_(self.b2).addcmul_(g, g, value=1 - self.b2)
                mh, vh = m / (1 - self.b1 ** self.t), v / (1 - self.b2 ** self.t)
                p.sub_(self.lr * mh / (vh.sqrt() + 1e-8))


def weights(*sizes):
    out = []
    for i, o in zip(sizes, sizes[1:]):
        out += [(torch.randn(i, o) / i ** 0.5).requires_grad_(), torch.zeros(o, requires_grad=True)]
    return out


def forward(ws, x):
    for k in range(0, len(ws), 2):
        x = x @ ws[k] + ws[k + 1]
        if k + 2 < len(ws):
            x = torch.tanh(x)
    return x


class Queue:
    """admit or refuse jobs; ends when the server is broken by overload"""

    def enter(self):
        self.n, self.job = 2, rng.random()
        return np.array([self.n / 5, self.job], dtype=np.float32)

    def handle(self, accept):
        pay = 0.0
        if accept:
            self.n, pay = self.n + 1, self.job
        self.n = max(0, self.n - (rng.random() < 0.5))
        broken = self.n > 5
        self.job = rng.random()
        return {"obs": np.array([self.n / 5, self.job], dtype=np.float32), "pay": pay - 2.0 * broken, "broken": broken}


actor, critic = weights(2, 24, 2), weights(2, 24, 1)
slow, fast = MyAdam(actor, 2e-3), MyAdam(critic, 8e-3)
env, hist = Queue(), []
obs = env.enter()
for it in range(250):
    rows = []
    for _ in range(16):
        x = torch.from_numpy(obs)
        with torch.no_grad():
            p = forward(actor, x).softmax(0)[1].item()
        u = int(rng.random() < p)
        res = env.handle(u)
        rows.append((obs, u, res["pay"], res["obs"], 1.0 - res["broken"]))
        obs = env.enter() if res["broken"] else res["obs"]
    s, u, r, n, live = (torch.as_tensor(np.array(c, dtype=np.float32)) for c in zip(*rows))
    v = forward(critic, s)[:, 0]
    with torch.no_grad():
        td = r + 0.9 * live * forward(critic, n)[:, 0] - v
    fast.step_from((v - (v.detach() + td)).square().mean())
    logp = forward(actor, s).log_softmax(1)
    ent = -(logp.exp() * logp).sum(1)
    slow.step_from(-(td * logp.gather(1, u.long()[:, None])[:, 0] + 0.01 * ent).mean())
    hist.append(r.mean().item())
print("pay per job, first / last 60 iterations:", np.mean(hist[:60]), np.mean(hist[-60:]), "entropy", ent.mean().item())
