"""Rock-paper-scissors-well league: the learner plays against an anchor that is refreshed now and then."""
import torch
from torch import nn
from torch.distributions import Categorical

PAY = torch.tensor([[0., -1., 1., -1.], [1., 0., -1., 1.], [-1., 1., 0., -1.], [1., -1., 1., 0.]])


class Player(nn.Module):
    def __init__(self, rng):
        super().__init__()
        self.table = nn.ParameterList([nn.Parameter(0.3 * torch.randn(4, 16, generator=rng)),
                                       nn.Parameter(0.3 * torch.randn(16, 4, generator=rng))])

    def forward(self, mood):
        return Categorical(logits=torch.tanh(mood @ self.table[0]) @ self.table[1])


class League:
    def __init__(self, seed, lr=5e-3):
        torch.manual_seed(seed)
        rng = torch.Generator().manual_seed(seed)
        self.live, self.anchor = Player(rng), Player(rng)
        self.anchor.requires_grad_(False)
        self.opt = torch.optim.Adam(self.live.parameters(), lr=lr)
        self.log = []

    def match(self, n=256):
        mood = torch.nn.functional.one_hot(torch.randint(4, (n,)), 4).float()
        mine = self.live(mood)
        a, b = mine.sample(), self.anchor(mood).sample()
        # moods tilt the pay-off: the mood's own sign wins double
        pay = PAY[a, b] * (1 + (mood.argmax(1) == a).float())
        return mine, a, pay

    def learn(self):
        mine, a, pay = self.match()
        loss = -(mine.log_prob(a) * (pay - pay.mean())).mean() - 0.01 * mine.entropy().mean()
        self.opt.zero_grad()
        loss.backward()
        self.opt.step()
        self.log.append(pay.mean().item())

    @torch.no_grad()
    def refresh(self):
        for p, q in zip(self.live.parameters(), self.anchor.parameters()):
            p.copy_(q)  # expect: weights-overwritten

    def run(self, rounds=400, every=10):
        for k in range(1, rounds + 1):
            self.learn()
            if k % every == 0:
                self.refresh()
            if k % 80 == 0:
                print(f"round {k}: pay {sum(self.log[-80:]) / 80:+.4f}")


League(seed=4).run()
