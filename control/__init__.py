"""What people and their programs steer with: REST control API, read side."""
