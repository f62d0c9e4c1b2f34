//! The statements over SQLite.
//!
//! The rule this module protects: both databases are asked the same.

pub(super) type Database = sqlx::Sqlite;
pub(super) type Connection = sqlx::SqliteConnection;

#[expect(clippy::duplicate_mod, reason = "the same statements, over two databases")]
#[path = "statements.rs"]
pub(super) mod statements;
