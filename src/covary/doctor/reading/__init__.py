"""What the rules have in common: a loss, an order of calls, a copy, a line of source, read for what it means."""
