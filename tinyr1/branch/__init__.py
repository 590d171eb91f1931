"""Stage 02: curated rows as tokens + one backbone -> packed sequences -> one fine-tuned checkpoint for each domain.

plan says which model learns from which rows, stage starts each training, train is the process that does it, sequences,
packing and attention make its sequences, ranks lets several processes train as one. Read plan first, then packing, then
train.
"""
