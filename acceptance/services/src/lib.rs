//! PostgreSQL and NATS for tests, started by the project's own scripts.
