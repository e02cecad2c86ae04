"""Return prediction from padded sequences with a GRU."""
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

torch.manual_seed(6)


def make_sequences(n=256, gamma=0.9):
    seqs, rets = [], []
    for _ in range(n):
        L = int(torch.randint(5, 15, (1,)))
        r = torch.randn(L)
        s = torch.stack([r, torch.roll(r, 1)], dim=1)
        acc, out = torch.zeros(()), torch.zeros(L)
        for t in range(L):           # discounted sum of what was seen so far
            acc = gamma * acc + r[t]
            out[t] = acc
        seqs.append(s); rets.append(out)
    return seqs, rets


class GRUValue(nn.Module):
    def __init__(self, d_in: int, d_hidden: int = 32):
        super().__init__()
        self.gru = nn.GRU(d_in, d_hidden, batch_first=True)
        self.head = nn.Linear(d_hidden, 1)

    def forward(self, x, lengths):
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        h, _ = self.gru(packed)
        h, _ = pad_packed_sequence(h, batch_first=True, total_length=x.shape[1])
        return self.head(h).squeeze(-1)


class SequenceTrainer:
    def __init__(self, model: nn.Module, lr: float):
        self.model = model
        self.opt = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
        self.sched = torch.optim.lr_scheduler.StepLR(self.opt, step_size=100, gamma=0.5)

    def step(self, x, y, lengths) -> float:
        mask = (torch.arange(x.shape[1])[None, :] < lengths[:, None]).float()
        err = (self.model(x, lengths) - y) * mask
        loss = err.square().sum() / mask.sum()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 100.0)
        self.opt.step()  # expect: missing-zero-grad
        self.sched.step()
        return loss.item()


seqs, rets = make_sequences()
lengths = torch.tensor([len(s) for s in seqs])
X, Y = pad_sequence(seqs, batch_first=True), pad_sequence(rets, batch_first=True)

trainer = SequenceTrainer(GRUValue(2), lr=0.02)
for epoch in range(30):
    losses = []
    for idx in torch.randperm(len(X)).split(64):
        losses.append(trainer.step(X[idx], Y[idx], lengths[idx]))
    if epoch % 10 == 0 or epoch == 29:
        print(f"epoch {epoch:2d} loss {sum(losses) / len(losses):.4f}")
