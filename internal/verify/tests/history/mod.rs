//! A platform in miniature that only writes down what a right one would have stored: histories as data, to be corrupted.

#![allow(dead_code, reason = "each test target needs another part of it")]

pub(crate) mod projection;
pub(crate) mod stored;
pub(crate) mod world;
