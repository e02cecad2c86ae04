import random, collections
import gymnasium as gym
import torch
import torch.nn as nn
import torch.nn.functional as F
import numpy as np

class ReplayBuffer():
    def __init__(self):
        self.buffer = collections.deque(maxlen=10000)
    def put(self, transition):
        self.buffer.append(transition)
    def sample(self, n):
        mini_batch = random.sample(self.buffer, n)
        s_lst, a_lst, r_lst, s_prime_lst, done_lst = [], [], [], [], []
        for s, a, r, s_prime, done in mini_batch:
            s_lst.append(s)
            a_lst.append([a])
            r_lst.append([r])
            s_prime_lst.append(s_prime)
            done_lst.append([done])
        return torch.tensor(np.array(s_lst)), torch.tensor(a_lst), torch.tensor(r_lst), \
               torch.tensor(np.array(s_prime_lst)), torch.tensor(done_lst)
    def size(self):
        return len(self.buffer)

class Qnet(nn.Module):
    def __init__(self):
        super(Qnet, self).__init__()
        self.fc1 = nn.Linear(4, 64)
        self.fc2 = nn.Linear(64, 2)
    def forward(self, x):
        return self.fc2(F.relu(self.fc1(x)))
    def sample_action(self, obs, epsilon):
        if random.random() < epsilon:
            return random.randint(0, 1)
        with torch.no_grad():
            return self.forward(obs).argmax().item()

def train(q, q_target, memory, optimizer):
    for i in range(8):
        s, a, r, s_prime, done = memory.sample(32)
        q_a = q(s).gather(1, a)
        with torch.no_grad():
            max_q_prime = q_target(s_prime).max(1)[0].unsqueeze(1)
        target = r + 0.98 * max_q_prime * done.float()  # expect: done-mask
        loss = F.smooth_l1_loss(q_a, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

def main():
    random.seed(0); torch.manual_seed(0)
    env = gym.make('CartPole-v1')
    q, q_target = Qnet(), Qnet()
    q_target.load_state_dict(q.state_dict())
    memory = ReplayBuffer()
    optimizer = torch.optim.Adam(q.parameters(), lr=0.0005)
    score = 0.0
    for n_epi in range(120):
        epsilon = max(0.05, 0.3 - 0.01*(n_epi/5))
        s, _ = env.reset(seed=n_epi)
        over = False
        while not over:
            a = q.sample_action(torch.from_numpy(s), epsilon)
            s_prime, r, terminated, truncated, _ = env.step(a)
            memory.put((s, a, r, s_prime, terminated))
            s = s_prime
            score += r
            over = terminated or truncated
        if memory.size() > 300:
            train(q, q_target, memory, optimizer)
        if n_epi % 20 == 19:
            q_target.load_state_dict(q.state_dict())
            print("n_episode :{}, score : {:.1f}, eps : {:.2f}".format(n_epi+1, score/20, epsilon))
            score = 0.0
main()
