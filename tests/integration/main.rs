//! One binary for all tests that need real parts: servers, processes, file systems.

mod architecture;
mod full;
mod incremental;
mod migration;
mod retries;
mod server_harness;
mod source;
mod support;
