import random
import gymnasium as gym
import torch
import torch.nn as nn

torch.manual_seed(20)
random.seed(20)

env = gym.make("CartPole-v1")
policy_net = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
target_net = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
target_net.load_state_dict(policy_net.state_dict())
target_net.eval()

optimizer = torch.optim.AdamW(policy_net.parameters(), lr=1e-3, amsgrad=True, weight_decay=0.0)
criterion = nn.SmoothL1Loss()
memory = []
GAMMA, BATCH = 0.99, 64
eps, steps_done = 1.0, 0


def select_action(state):
    if random.random() < eps:
        return env.action_space.sample()
    with torch.no_grad():
        return policy_net(state).argmax().item()


def optimize_model():
    if len(memory) < 2 * BATCH:
        return None
    batch = random.sample(memory, BATCH)
    states = torch.stack([b[0] for b in batch])
    actions = torch.tensor([b[1] for b in batch]).view(-1, 1)
    rewards = torch.tensor([b[2] for b in batch])
    non_final = torch.tensor([b[3] is not None for b in batch])
    next_states = torch.stack([b[3] for b in batch if b[3] is not None])

    q = policy_net(states).gather(1, actions).squeeze(1)
    next_q = torch.zeros(BATCH)
    with torch.no_grad():
        # double DQN: the online net chooses, the target net evaluates
        best = policy_net(next_states).argmax(1, keepdim=True)
        next_q[non_final] = target_net(next_states).gather(1, best).squeeze(1)
    loss = criterion(q, rewards + GAMMA * next_q)

    loss.backward()
    nn.utils.clip_grad_value_(policy_net.parameters(), 100)
    optimizer.zero_grad()  # expect: order-of-calls
    optimizer.step()
    return loss.item()


env.action_space.seed(20)
for episode in range(40):
    state = torch.from_numpy(env.reset(seed=episode)[0])
    length, loss, ended = 0, None, False
    while not ended:
        action = select_action(state)
        obs, reward, terminated, truncated, _ = env.step(action)
        nxt = torch.from_numpy(obs)
        memory.append((state, action, reward, None if terminated else nxt))
        state = nxt
        loss = optimize_model()
        length += 1
        steps_done += 1
        if steps_done % 50 == 0:
            with torch.no_grad():
                for t, p in zip(target_net.parameters(), policy_net.parameters()):
                    t += 0.5 * (p - t)
        ended = terminated or truncated
    eps = max(0.05, eps * 0.93)
    if episode % 10 == 9:
        print("episode", episode + 1, "length", length, "loss", loss)
