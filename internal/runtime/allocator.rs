//! Where every program's memory comes from: jemalloc, on Linux, unless it is built without the feature `jemalloc`.
//!
//! The rule this module protects: what is freed goes back to the system. SQLite's connections are a thread each; rows are made by
//! one thread and freed by another, and with an arena for each of them the C library keeps as much that is free as there is in use. SQLite
//! asks `malloc`, so that is jemalloc's, too. A thread in the background gives back what is not used again soon, also
//! while nothing happens; how soon says `.cargo/config.toml`, and `MALLOC_CONF` for one process.

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
