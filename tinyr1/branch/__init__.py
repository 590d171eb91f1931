"""Stage 02: curated rows as tokens + one backbone -> packed sequences -> one fine-tuned checkpoint for each domain.

plan says which model learns from which rows, stage starts each training, train is the process that does it. sequences,
packing and attention make its sequences, causal_lm its loss; monitor watches it; ranks lets several processes train as
one, hosts and meeting look whether several machines can. Read plan first, then packing, then train.
"""
