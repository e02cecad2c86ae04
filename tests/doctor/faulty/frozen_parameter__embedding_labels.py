import random

import torch
import torch.nn as nn

# tiny sentiment classifier on made-up reviews
POSITIVE = "great lovely superb tasty friendly quick warm clean fresh kind".split()
NEGATIVE = "awful rude bland slow cold dirty stale noisy greasy broken".split()
NEUTRAL = "the food service room was and a waiter table place dinner we had very".split()
VOCAB = {w: i + 1 for i, w in enumerate(POSITIVE + NEGATIVE + NEUTRAL)}
MAX_LEN = 10

random.seed(1)
torch.manual_seed(1)


def make_review():
    label = random.randint(0, 1)
    words = random.choices(NEUTRAL, k=random.randint(4, 8))
    words += random.choices(POSITIVE if label else NEGATIVE, k=2)
    if random.random() < 0.2:
        words[random.randrange(len(words))] = random.choice(NEGATIVE if label else POSITIVE)
    random.shuffle(words)
    ids = [VOCAB[w] for w in words][:MAX_LEN]
    return ids + [0] * (MAX_LEN - len(ids)), label


class ReviewNet(nn.Module):
    def __init__(self, n_words, dim=6):
        super().__init__()
        self.word_vectors = nn.Embedding(n_words, dim, padding_idx=0)
        self.word_vectors.weight.requires_grad_(False)  # expect: frozen-parameter
        self.classify = nn.Sequential(nn.Linear(dim, 16), nn.ReLU(), nn.Linear(16, 2))

    def forward(self, ids):
        mask = (ids != 0).float().unsqueeze(-1)
        vectors = self.word_vectors(ids) * mask
        return self.classify(vectors.sum(dim=1) / mask.sum(dim=1))


reviews = [make_review() for _ in range(1000)]
ids = torch.tensor([r[0] for r in reviews])
labels = torch.tensor([r[1] for r in reviews])
net = ReviewNet(len(VOCAB) + 1)
optimizer = torch.optim.AdamW(net.parameters(), lr=5e-3)
criterion = nn.CrossEntropyLoss()

for epoch in range(30):
    net.train()
    for idx in torch.randperm(800).split(40):
        logits = net(ids[idx])
        loss = criterion(logits, labels[idx])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if epoch % 10 == 9:
        net.eval()
        with torch.no_grad():
            acc = (net(ids[800:]).argmax(1) == labels[800:]).float().mean()
        print(f"epoch {epoch + 1}: loss {loss.item():.3f} test accuracy {acc.item():.3f}")
