import random
import gymnasium as gym
import torch
import torch.nn as nn

random.seed(0)
torch.manual_seed(0)

env = gym.make("CartPole-v1")
policy_net = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
target_net = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
target_net.load_state_dict(policy_net.state_dict())
optimizer = torch.optim.AdamW(policy_net.parameters(), lr=1e-3, amsgrad=True)

memory = []          # list of (state, action, reward, next_state, terminated)
BATCH, GAMMA = 64, 0.98
eps = 1.0
steps = 0


def huber(err, k=1.0):
    a = err.abs()
    return torch.where(a < k, 0.5 * err ** 2, k * (a - 0.5 * k)).mean()


def optimize():
    batch = random.sample(memory, BATCH)
    states = torch.stack([b[0] for b in batch])
    actions = torch.tensor([[b[1]] for b in batch])
    rewards = torch.tensor([b[2] for b in batch])
    next_states = torch.stack([b[3] for b in batch])
    ends = torch.tensor([float(b[4]) for b in batch])

    q = policy_net(states).gather(1, actions)
    with torch.no_grad():
        next_q = target_net(next_states).max(1).values
        target = rewards + GAMMA * next_q * (1 - ends)
    loss = huber(q - target)  # expect: broadcast
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_value_(policy_net.parameters(), 100)
    optimizer.step()
    return loss.item()


durations = []
for i_episode in range(70):
    state, _ = env.reset(seed=i_episode)
    state = torch.tensor(state)
    t = 0
    while True:
        if random.random() < eps:
            action = env.action_space.sample()
        else:
            with torch.no_grad():
                action = policy_net(state).argmax().item()
        nxt, reward, terminated, truncated, _ = env.step(action)
        nxt = torch.tensor(nxt)
        memory.append((state, action, float(reward), nxt, terminated))
        if len(memory) > 5000:
            memory.pop(0)
        state = nxt
        t += 1
        steps += 1
        eps = max(0.05, eps * 0.996)
        if len(memory) >= BATCH:
            loss = optimize()
        if steps % 50 == 0:
            target_net.load_state_dict(policy_net.state_dict())
        if terminated or truncated:
            break
    durations.append(t)
    if i_episode % 10 == 9:
        print(f"episode {i_episode + 1} mean duration {sum(durations[-10:]) / 10:.1f} loss {loss:.4f} eps {eps:.2f}")
