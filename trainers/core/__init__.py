"""How learners are trained and used: prompts, inputs, the trainer, and what is built of a config."""
