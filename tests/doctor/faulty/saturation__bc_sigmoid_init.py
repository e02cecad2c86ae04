# clone a thermostat: features -> heater power between 0 and 1
import torch
torch.manual_seed(64)

def expert(x):
    # x: inside temp, outside temp, setpoint, hour (all standardised)
    want = 0.9*(x[:,2]-x[:,0]) - 0.3*x[:,1] + 0.2*torch.sin(x[:,3])
    return torch.sigmoid(2*want)

def make_data(n):
    x = torch.randn(n, 4)
    return x, expert(x)

def init_weights(shape):
    w = torch.empty(*shape).normal_(0.0, 100.0)
    return w.requires_grad_()

W1, b1 = init_weights((4, 30)), torch.zeros(30, requires_grad=True)
W2, b2 = (0.1*torch.randn(30, 1)).requires_grad_(), torch.zeros(1, requires_grad=True)

def forward(x):
    hidden = torch.sigmoid(x @ W1 + b1)  # expect: saturation
    return torch.sigmoid(hidden @ W2 + b2)[:, 0]

opt = torch.optim.SGD([W1, b1, W2, b2], lr=0.3, momentum=0.9)
x_tr, y_tr = make_data(3000)
x_te, y_te = make_data(500)

for epoch in range(25):
    order = torch.randperm(3000)
    for k in range(0, 3000, 60):
        i = order[k:k+60]
        opt.zero_grad()
        loss = ((forward(x_tr[i]) - y_tr[i])**2).mean()
        loss.backward()
        opt.step()
    if epoch % 5 == 0:
        with torch.no_grad():
            print(epoch, 'train', loss.item(), 'test', ((forward(x_te)-y_te)**2).mean().item())
