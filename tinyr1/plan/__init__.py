"""What a run takes, worked out before anything of it is downloaded: `make plan RUN=name`, offline and in seconds.

    params + config.json ------------> shapes: layers, width, vocabulary, parameters
    params + rows, or estimates -----> work: tokens and steps of each training, tokens of all answers
    arguments, or machine.describe --> hardware: GPUs and their memory, or the CPU
        shape + work + hardware --memory, hours--> estimate.Plan --verdict--> what does not fit, and the smallest change
        Plan --tables--> text for a person;  gate: `make reproduce` prints the short form, and refuses what cannot run

Nothing here imports PyTorch or transformers, and nothing uses the network. Read estimate first, then memory and hours.
"""
