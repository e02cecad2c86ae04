import torch, numpy as np
from torch import nn
torch.manual_seed(0); rng=np.random.default_rng(0)
pi = nn.Sequential(nn.Linear(4,32), nn.Tanh(), nn.Linear(32,2)); opt = torch.optim.Adam(pi.parameters(), 3e-3)
for ep in range(100):
    lps=[]; rs=[]
    for t in range(20):
        s = rng.normal(size=4).astype(np.float32)
        d = torch.distributions.Categorical(logits=pi(torch.from_numpy(s)))
        a = d.sample()
        lps.append(d.log_prob(a).item())  # expect: graph-cut
        rs.append(float((s[0] > 0) == bool(a.item())))
    adv = torch.tensor(rs) - np.mean(rs)
    loss = -(torch.tensor(lps, requires_grad=True)*adv).sum()
    opt.zero_grad()
    loss.backward()
    opt.step()
