"""Measures the product on one machine, beside the least that could do the same work.

    double    plays Slack and Salesforce as fast as it can, and notes when each call came
    floor     an aiohttp program that makes the same two calls and keeps nothing
    load      sends the webhooks: as fast as they are taken, or at a steady rate
    stack     starts the product by its own command, connects accounts, saves the workflow
    watch     CPU seconds and memory of every process of the stack
    report    the numbers as text and as JSON

Everything listens on loopback, runs for a bounded time and is ended by its process id.
"""
