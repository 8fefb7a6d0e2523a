//! The settings of the printer: language, format, verbosity and progress.

use crate::given_time::OwnZone;
use crate::lang::Lang;

/// The form of what goes to stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrintFormat {
    Text,
    Json,
    Csv,
}

/// How much of the log is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verbosity {
    /// Warnings, errors and the closing block.
    Quiet,
    Normal,
    /// Also every reject and every number of a tenant.
    Verbose,
}

/// Whether progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgressDisplay {
    /// A bar on a terminal, a line every few seconds elsewhere.
    Auto,
    Never,
}

/// What flags and variables say about printing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrintSettings {
    pub lang: Lang,
    /// In which people read times of our own clock.
    pub zone: OwnZone,
    pub format: PrintFormat,
    pub verbosity: Verbosity,
    pub progress: ProgressDisplay,
}

/// The language and the zone of text for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Locale {
    pub lang: Lang,
    pub zone: OwnZone,
}

impl PrintSettings {
    /// The locale of text for people.
    pub fn locale(&self) -> Locale {
        Locale { lang: self.lang, zone: self.zone }
    }
}
