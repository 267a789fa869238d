"""The thin layer that talks to Kafka, HTTP and Postgres."""
