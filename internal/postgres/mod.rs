//! The distributed adapters of the event log and of the read models: PostgreSQL.
