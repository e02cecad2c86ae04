import torch
torch.manual_seed(0)
m=torch.nn.Linear(2,1)
o=torch.optim.SGD(m.parameters(),0.1)
for _ in range(30):
    out = m(torch.randn(8,2))
    pred = out.detach()  # expect: graph-cut
    l=(pred-1).pow(2).mean()
    l.requires_grad_()
    o.zero_grad()
    l.backward()
    o.step()
