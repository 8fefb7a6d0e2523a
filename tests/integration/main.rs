//! One binary for all tests that need real parts: servers, processes, file systems.

mod architecture;
mod dropin;
mod full;
mod history;
mod incremental;
mod migration;
mod paths;
mod rejects;
mod retries;
mod server_harness;
mod source;
mod support;
