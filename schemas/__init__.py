"""The contract between the stages; imports nothing of ours and does no I/O."""
