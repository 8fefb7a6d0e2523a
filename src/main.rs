//! The process: its allocator and its exit code. Everything else is in the library; start reading at `lib.rs`.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// A row is allocated by one thread and freed by another. Threads wait for each other in the C library's allocator when
/// they do that, so the program brings an allocator of its own: without it, a second full export takes half as long
/// again (BENCHMARKS.md).
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    invoice_export::commands::main()
}
