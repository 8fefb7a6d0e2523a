//! Parses, runs, and gives back the exit code. Everything else is in the library; start reading at
//! `lib.rs`.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// What one thread allocates for a row another one frees, for which the C library's allocator has threads wait
/// for each other: with it, a second full export takes half as long again (BENCHMARKS.md).
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    invoice_export::commands::main()
}
