//! One binary for all tests that need real parts: servers, processes, file systems.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod adoption;
mod architecture;
mod attacks;
mod backups;
mod checks;
mod connection;
mod crash;
mod damage;
mod dropin;
mod dryrun;
mod errors;
mod failing_calls;
mod full;
mod full_disks;
mod histories;
mod history;
mod hostile;
mod incremental;
mod late_commits;
mod legacy;
mod locks;
mod migration;
mod moments;
mod option_files;
mod output;
mod paths;
mod power;
mod reading;
mod refusals;
mod rejects;
mod replicas;
mod retries;
mod selection;
mod server_harness;
mod signals;
mod source;
mod status;
mod steering;
mod support;
mod tls;
mod upgrades;
mod variants;
mod verify;
mod why;
