//! The statements over PostgreSQL.
//!
//! The rule this module protects: both databases are asked the same.

pub(super) type Database = sqlx::Postgres;
pub(super) type Connection = sqlx::PgConnection;

#[expect(clippy::duplicate_mod, reason = "the same statements, over two databases")]
#[path = "statements.rs"]
pub(super) mod statements;
