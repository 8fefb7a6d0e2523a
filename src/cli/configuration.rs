//! The command line of `config`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Each setting with its value and where that comes from
    Show,
    /// Write a configuration file with every setting as a comment
    Init(Init),
    /// Is the configuration right? Exit 2 if it is not, or if there is none
    Check,
}

#[derive(Debug, Args)]
pub struct Init {
    /// A file that does not exist yet [default: /etc/invoice-export/config.toml for root, the one in ~/.config for others]
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
}
