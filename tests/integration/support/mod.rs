//! What the integration tests stand on: real servers, real tables, the real binary.
//!
//! It knows the documented behaviour only; nothing here calls the exporter's own code, so that a
//! mistake there cannot hide in its tests.
#![allow(dead_code, unused_imports, reason = "a harness offers more than today's tests use")]

use std::net::ToSocketAddrs;
use std::thread;
use std::time::{Duration, Instant};

pub(crate) mod clocks;
pub(crate) mod database;
pub(crate) mod disk;
pub(crate) mod embedded;
pub(crate) mod exporter;
pub(crate) mod impostor;
pub(crate) mod invariants;
pub(crate) mod listing;
pub(crate) mod proxy;
pub(crate) mod reader;
pub(crate) mod rounds;
pub(crate) mod sample;
pub(crate) mod scene;
pub(crate) mod server;
pub(crate) mod state;
pub(crate) mod supervisor;
pub(crate) mod table;

pub(crate) use database::Database;
pub(crate) use exporter::Exporter;
pub(crate) use proxy::{Break, Proxy};
pub(crate) use server::{Flavor, Server, Settings, server};
pub(crate) use table::{Row, Table, on_every_flavor, on_every_source};

/// The names by which programs on this machine reach its servers. Without /etc/hosts it has no localhost.
pub(crate) fn names_of_this_machine() -> Vec<&'static str> {
    ["127.0.0.1", "localhost"].into_iter().filter(|name| (*name, 0).to_socket_addrs().is_ok()).collect()
}

/// Waits for what comes by itself; fails where it never does. It leaves the processor to those it waits for.
#[track_caller]
pub(crate) fn wait_for(what: &str, mut has_come: impl FnMut() -> bool) {
    let since = Instant::now();
    while !has_come() {
        assert!(since.elapsed() < exporter::ENDS_WITHIN, "it never comes: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// For tests that start thousands of processes; an ordinary folder where the system has no such place.
fn folder_in_memory() -> tempfile::TempDir {
    let memory = std::path::Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    folder.expect("make a folder in memory")
}
