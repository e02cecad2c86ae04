"""DDPG on a 2-state LQR, functional style: plain weight lists, F.linear, two optimizers."""
import torch
import torch.nn.functional as F

torch.manual_seed(14)


def init_mlp(*sizes):
    params = []
    for i, o in zip(sizes[:-1], sizes[1:]):
        params.append((torch.randn(o, i) / i ** 0.5).requires_grad_())
        params.append(torch.zeros(o, requires_grad=True))
    return params


def mlp(params, x):
    layers = list(zip(params[::2], params[1::2]))
    for w, b in layers[:-1]:
        x = F.relu(F.linear(x, w, b))
    w, b = layers[-1]
    return F.linear(x, w, b)


def pi(params, s):
    return torch.tanh(mlp(params, s))


def q_value(params, s, a):
    return mlp(params, torch.cat([s, a], dim=-1)).squeeze(-1)


def clone(params):
    return [p.detach().clone() for p in params]


@torch.no_grad()
def polyak(target, source, tau=0.02):
    for t, s in zip(target, source):
        t.lerp_(s, tau)


A = torch.tensor([[1.0, 0.1], [0.0, 0.98]])
B = torch.tensor([[0.0], [0.2]])


def dynamics(s, a):
    reward = -(s.square().sum(-1) + 0.1 * a.square().sum(-1))
    return (s @ A.T + a @ B.T + 0.02 * torch.randn_like(s)).clamp(-4, 4), reward


actor, critic = init_mlp(2, 48, 1), init_mlp(3, 48, 48, 1)
actor_t, critic_t = clone(actor), clone(critic)
actor_optim = torch.optim.Adam(actor, lr=5e-4)
critic_optim = torch.optim.Adam(critic, lr=2e-3)

size, ptr, n_env = 4096, 0, 8
mem_s, mem_a = torch.zeros(size, 2), torch.zeros(size, 1)
mem_r, mem_s2 = torch.zeros(size), torch.zeros(size, 2)
state = torch.randn(n_env, 2)

for step in range(500):
    with torch.no_grad():
        action = (pi(actor, state) + 0.2 * torch.randn(n_env, 1)).clamp(-1, 1)
        nxt, rew = dynamics(state, action)
    sl = slice(ptr, ptr + n_env)
    mem_s[sl], mem_a[sl], mem_r[sl], mem_s2[sl] = state, action, 0.1 * rew, nxt
    ptr += n_env
    state = nxt
    if step % 40 == 39:
        state = torch.randn(n_env, 2)
    if ptr < 256:
        continue

    idx = torch.randint(0, ptr, (64,))
    s, a, r, s2 = mem_s[idx], mem_a[idx], mem_r[idx], mem_s2[idx]
    with torch.no_grad():
        y = r + 0.95 * q_value(critic_t, s2, pi(actor_t, s2))
    critic_loss = F.smooth_l1_loss(q_value(critic, s, a), y)
    critic_optim.zero_grad()
    critic_loss.backward()
    critic_optim.step()

    actor_loss = q_value(critic, s, pi(actor, s)).mean()  # expect: wrong-sign
    for p, g in zip(actor, torch.autograd.grad(actor_loss, actor)):
        p.grad = g
    actor_optim.step()

    polyak(actor_t, actor)
    polyak(critic_t, critic)
    if step % 100 == 99:
        print(step + 1, f"reward {rew.mean().item():.3f} critic {critic_loss.item():.4f}")
