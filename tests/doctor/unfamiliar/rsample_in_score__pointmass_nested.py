import torch as th
from torch.distributions import Independent, Normal


def experiment(seed=5, n=200, T=8, rounds=150):
    th.manual_seed(seed)
    K = th.zeros(2, 4, requires_grad=True)
    k0 = th.zeros(2, requires_grad=True)
    rho = th.full((2,), -0.7, requires_grad=True)
    b = th.zeros(5, requires_grad=True)          # baseline, linear in the features
    ascent = th.optim.SGD([K, k0, rho], lr=0.02)
    fit_b = th.optim.SGD([b], lr=0.02)

    def pi(x):
        return Independent(Normal(th.einsum("ij,nj->ni", K, x) + k0, rho.exp()), 1)

    def baseline(x):
        return th.cat([x.square(), th.ones(len(x), 1)], 1) @ b

    def push(x, u):
        vel = 0.9 * x[:, 2:] + 0.3 * u
        return th.cat([x[:, :2] + 0.3 * vel, vel], 1)

    def roll():
        x = th.cat([th.randn(n, 2), th.zeros(n, 2)], 1)
        xs, scores, costs = [], [], []
        for _ in range(T):
            d = pi(x)
            u = d.rsample()  # expect: rsample-in-score
            xs.append(x)
            scores.append(d.log_prob(u))
            with th.no_grad():
                x = push(x, u)
                costs.append(x[:, :2].square().sum(1) + 0.02 * u.square().sum(1))
        return xs, th.stack(scores), th.stack(costs)

    def togo(c):
        return c.flip(0).cumsum(0).flip(0)

    history = []
    for i in range(rounds):
        xs, scores, costs = roll()
        C = togo(costs)
        B = th.stack([baseline(x) for x in xs])
        w = (C - B).detach()
        w = (w - w.mean()) / (w.std() + 1e-8)
        surrogate = (scores * w).sum(0).mean() - 0.01 * pi(xs[0]).entropy().mean()
        ascent.zero_grad()
        surrogate.backward()
        ascent.step()

        fit_b.zero_grad()
        (B - C).square().mean().mul(0.5).backward()
        fit_b.step()
        history.append(costs.sum(0).mean().item())
        if i % 30 == 0:
            print(f"round {i:3d}: cost {history[-1]:.3f}  |K| {K.norm().item():.4f}  sd {rho.exp().mean().item():.3f}")
    return history


if __name__ == "__main__":
    h = experiment()
    print("first/last ten:", sum(h[:10]) / 10, sum(h[-10:]) / 10)
