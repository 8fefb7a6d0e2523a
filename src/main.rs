//! Parses, runs, and gives back the exit code. Everything else is in the library; start reading at
//! `lib.rs`.

use std::process::ExitCode;

fn main() -> ExitCode {
    invoice_export::commands::main()
}
