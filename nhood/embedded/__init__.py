"""Kafka, PostgreSQL and Valkey on one machine without Docker."""
