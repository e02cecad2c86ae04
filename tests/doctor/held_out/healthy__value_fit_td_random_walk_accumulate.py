import argparse
import random

import torch


def walk(rng, n=19):
    """Sutton's random walk: +1 at the right end, 0 at the left end."""
    state = n // 2
    while True:
        nxt = state + rng.choice((-1, 1))
        if nxt < 0:
            yield state, 0.0, 0, True
            return
        if nxt >= n:
            yield state, 1.0, n - 1, True
            return
        yield state, 0.0, nxt, False
        state = nxt


def features(states, n=19):
    x = torch.tensor(states, dtype=torch.float32) / (n - 1)
    return torch.stack([torch.cos(torch.pi * k * x) for k in range(6)], dim=1)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--episodes", type=int, default=160)
    ap.add_argument("--micro", type=int, default=32, help="transitions per backward")
    ap.add_argument("--accumulate", type=int, default=2, help="backwards per step")
    ap.add_argument("--epochs", type=int, default=6)
    args = ap.parse_args()
    torch.manual_seed(0)
    rng = random.Random(0)
    transitions = [tr for _ in range(args.episodes) for tr in walk(rng)]
    print(len(transitions), "transitions")

    net = torch.nn.Sequential(torch.nn.Linear(6, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))
    opt = torch.optim.Adam(net.parameters(), lr=1e-3)
    opt.zero_grad()
    pending = 0
    for epoch in range(args.epochs):
        rng.shuffle(transitions)
        total = 0.0
        for i in range(0, len(transitions) - args.micro + 1, args.micro):
            s, r, s2, end = zip(*transitions[i:i + args.micro])
            with torch.no_grad():
                boot = net(features(s2)).squeeze(-1)
                boot[torch.tensor(end)] = 0.0
            target = torch.tensor(r) + boot
            v = net(features(s)).squeeze(-1)
            loss = 0.5 * (target - v).square().mean()
            (loss / args.accumulate).backward()
            pending += 1
            if pending == args.accumulate:
                opt.step()
                opt.zero_grad()
                pending = 0
            total += loss.item()
        with torch.no_grad():
            est = net(features(range(19))).squeeze(-1)
        true = torch.arange(1, 20) / 20
        print(f"epoch {epoch}: td loss {total / (i // args.micro + 1):.4f}, rms error {(est - true).square().mean().sqrt().item():.4f}")


if __name__ == "__main__":
    main()
