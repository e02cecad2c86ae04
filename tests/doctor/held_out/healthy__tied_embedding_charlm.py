import torch
from torch import nn

torch.manual_seed(0)
text = "the cat sat on the mat and the dog sat on the log while the rat ran to the hat and the bat ate the oat " * 3
chars = sorted(set(text))
ix = {c: i for i, c in enumerate(chars)}
ids = torch.tensor([ix[c] for c in text])


class TinyLM(nn.Module):
    """causal self attention, output layer shares its weight with the embedding"""

    def __init__(self, v, d=32, ctx=24):
        super().__init__()
        self.tok = nn.Embedding(v, d)
        self.pos = nn.Parameter(0.02 * torch.randn(ctx, d))
        nn.init.normal_(self.tok.weight, std=0.1)
        self.n1, self.n2, self.n3 = nn.LayerNorm(d), nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.o = nn.Linear(d, 3 * d, bias=False), nn.Linear(d, d, bias=False)
        self.ff = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))
        self.head = nn.Linear(d, v, bias=False)
        self.head.weight = self.tok.weight
        self.register_buffer("mask", torch.triu(torch.ones(ctx, ctx, dtype=torch.bool), 1))

    def forward(self, x):
        L = x.shape[1]
        h = self.tok(x) + self.pos[:L]
        q, k, v = self.qkv(self.n1(h)).chunk(3, -1)
        att = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).masked_fill(self.mask[:L, :L], float("-inf"))
        h = h + self.o(att.softmax(-1) @ v)
        h = h + self.ff(self.n2(h))
        return self.head(self.n3(h))


lm = TinyLM(len(chars))
decay = [p for p in lm.parameters() if p.dim() > 1]
rest = [p for p in lm.parameters() if p.dim() <= 1]
opt = torch.optim.AdamW([{"params": decay, "weight_decay": 0.01}, {"params": rest, "weight_decay": 0.0}], lr=5e-3)
for it in range(300):
    at = torch.randint(0, len(ids) - 25, (16,))
    win = torch.stack([ids[a:a + 25] for a in at])
    logits = lm(win[:, :-1])
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), win[:, 1:].flatten())
    loss.backward()
    nn.utils.clip_grad_norm_(lm.parameters(), 1.0)
    for g in opt.param_groups:
        g["lr"] = 5e-3 * min(1, (it + 1) / 40)
    opt.step()
    opt.zero_grad(set_to_none=True)
    if it % 60 == 0:
        print(it, loss.item())
out = [ix["t"]]
with torch.no_grad():
    for _ in range(50):
        out.append(lm(torch.tensor([out[-24:]]))[0, -1].argmax().item())
print("".join(chars[i] for i in out))
