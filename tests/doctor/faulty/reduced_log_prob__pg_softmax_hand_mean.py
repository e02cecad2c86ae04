# vanilla policy gradient on a 4x4 grid, tabular features, softmax written by hand
import random
import torch
import torch.nn.functional as F

random.seed(1)
torch.manual_seed(1)

SIZE, GOAL, GAMMA = 4, 15, 0.95
MOVES = [(-1, 0), (1, 0), (0, -1), (0, 1)]


def move(cell, a):
    r, c = divmod(cell, SIZE)
    dr, dc = MOVES[a]
    r, c = min(max(r + dr, 0), SIZE - 1), min(max(c + dc, 0), SIZE - 1)
    nxt = r * SIZE + c
    return nxt, (1.0 if nxt == GOAL else -0.05), nxt == GOAL


hidden = torch.nn.Linear(SIZE * SIZE, 32)
head = torch.nn.Linear(32, 4)
opt = torch.optim.Adam(list(hidden.parameters()) + list(head.parameters()), lr=0.005)


def logits_for(cells):
    x = F.one_hot(torch.tensor(cells), SIZE * SIZE).float()
    return head(torch.relu(hidden(x)))


for update in range(80):
    cells, actions, returns, lengths = [], [], [], []
    for _ in range(4):
        cell, rewards = 0, []
        for t in range(30):
            with torch.no_grad():
                p = torch.softmax(logits_for([cell]), dim=-1)
                a = int(torch.multinomial(p, 1))
            cells.append(cell)
            actions.append(a)
            cell, r, done = move(cell, a)
            rewards.append(r)
            if done:
                break
        g, rets = 0.0, []
        for r in reversed(rewards):
            g = r + GAMMA * g
            rets.insert(0, g)
        returns += rets
        lengths.append(len(rewards))

    returns_t = torch.tensor(returns)
    returns_t = (returns_t - returns_t.mean()) / (returns_t.std() + 1e-6)
    log_probs = torch.log_softmax(logits_for(cells), dim=1)
    chosen = log_probs.gather(1, torch.tensor(actions)[:, None])
    chosen = chosen.mean()  # expect: reduced-log-prob
    policy_loss = -(chosen * returns_t).sum()

    opt.zero_grad()
    policy_loss.backward()
    opt.step()
    if update % 20 == 0:
        print(update, "avg length", sum(lengths) / len(lengths))
