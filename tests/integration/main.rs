//! One binary for all tests that need real parts: servers, processes, file systems.

mod architecture;
mod migration;
mod server_harness;
mod source;
mod support;
