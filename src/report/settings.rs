//! The settings of the printer: language, format, verbosity and progress.

use std::time::Duration;

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
    /// Warnings and errors, and the answer of a question.
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
    /// How long the command tries to reach the server, which is said on a terminal. None of a command that asks none.
    pub patience: Option<Duration>,
}

impl PrintSettings {
    /// As text, before the command line was understood.
    pub fn plain(lang: Lang) -> Self {
        Self {
            lang,
            zone: OwnZone::Utc,
            format: PrintFormat::Text,
            verbosity: Verbosity::Normal,
            progress: ProgressDisplay::Never,
            patience: None,
        }
    }

    /// The locale of text for people.
    pub fn locale(&self) -> Locale {
        Locale { lang: self.lang, zone: self.zone }
    }
}

/// The language and the zone of text for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Locale {
    pub lang: Lang,
    pub zone: OwnZone,
}
