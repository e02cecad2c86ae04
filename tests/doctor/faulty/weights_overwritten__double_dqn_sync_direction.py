import random
import torch
import torch.nn as nn
import torch.nn.functional as F

random.seed(2)
torch.manual_seed(2)

# taxi-like ring world: 12 places, pick up at `src`, drop at `dst`
PLACES = 12

class Ring:
    def reset(self):
        self.at = random.randrange(PLACES)
        self.goal = random.randrange(PLACES)
        while self.goal == self.at: self.goal = random.randrange(PLACES)
        self.t = 0
        return self.look()
    def look(self):
        x = torch.zeros(2 * PLACES); x[self.at] = 1; x[PLACES + self.goal] = 1
        return x
    def step(self, a):   # 0 left, 1 stay, 2 right
        self.at = (self.at + a - 1) % PLACES
        self.t += 1
        term = self.at == self.goal
        return self.look(), (1. if term else -.05), term, self.t >= 8

def make():
    return nn.Sequential(nn.Linear(2 * PLACES, 64), nn.ReLU(), nn.Linear(64, 3))

policy_net = make()
target_net = make()
target_net.load_state_dict(policy_net.state_dict())
target_net.eval()
opt = torch.optim.Adam(policy_net.parameters(), lr=1e-3)
mem = []
env = Ring()
updates = 0
solved = []
for ep in range(260):
    s = env.reset(); over = False
    eps = max(.1, 1 - ep / 120)
    while not over:
        with torch.no_grad():
            a = random.randrange(3) if random.random() < eps else policy_net(s).argmax().item()
        s2, r, term, trunc = env.step(a)
        mem.append((s, a, r, s2, term))
        s = s2; over = term or trunc
        if len(mem) < 200: continue
        S, A, R, S2, D = zip(*random.sample(mem, 32))
        S, S2 = torch.stack(S), torch.stack(S2)
        A, R, D = torch.tensor(A), torch.tensor(R), torch.tensor(D).float()
        with torch.no_grad():
            a_star = policy_net(S2).argmax(1, keepdim=True)
            y = R + .95 * (1 - D) * target_net(S2).gather(1, a_star).squeeze(1)
        loss = F.mse_loss(policy_net(S).gather(1, A.unsqueeze(1)).squeeze(1), y)
        opt.zero_grad(); loss.backward(); opt.step()
        updates += 1
        if updates % 20 == 0:
            for p, tp in zip(policy_net.parameters(), target_net.parameters()):
                p.data.copy_(tp.data)  # expect: weights-overwritten
    solved.append(float(term))
    if ep % 40 == 39: print(ep + 1, 'solved', sum(solved[-40:]) / 40, 'loss', loss.item() if updates else None)
