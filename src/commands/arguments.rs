//! What has to be known of the command line before it is understood: in which language and in which form its errors are
//! said, and which configuration goes with it.

use std::path::PathBuf;

use crate::config::{self, ConfigFile};
use crate::lang::Lang;
use crate::report::PrintFormat;

/// The language that flag, variable, configuration or locale ask for, in this order.
pub(super) fn lang(arguments: &[String], file: Option<&ConfigFile>) -> Lang {
    match given(arguments, "--lang", "INVOICE_EXPORT_LANG").as_deref().or_else(|| file?.text("lang")) {
        Some("zh") => Lang::Zh,
        Some("en") => Lang::En,
        _ => locale(),
    }
}

/// The form of results that flag, variable or configuration ask for, in this order.
pub(super) fn format(arguments: &[String], file: Option<&ConfigFile>) -> PrintFormat {
    match given(arguments, "--format", "INVOICE_EXPORT_FORMAT").as_deref().or_else(|| file?.text("format")) {
        Some("json") => PrintFormat::Json,
        Some("csv") => PrintFormat::Csv,
        _ => PrintFormat::Text,
    }
}

/// The configuration that goes with the command line; `None` where none is read. A new file is begun whatever another
/// one holds.
///
/// # Errors
/// Those of [`ConfigFile::find`].
pub(super) fn configuration(arguments: &[String]) -> anyhow::Result<Option<ConfigFile>> {
    let flags = arguments.split(|argument| argument == "--").next().unwrap_or_default();
    let mut words = flags.iter().filter(|argument| !argument.starts_with('-')).map(String::as_str);
    let begins_one = words.next() == Some("config") && words.next() == Some("init");
    if begins_one || flags.iter().any(|argument| argument == "--no-config") {
        return Ok(None);
    }
    ConfigFile::find(given(arguments, "--config", "INVOICE_EXPORT_CONFIG").map(PathBuf::from))
}

/// The language of the locale.
pub(super) fn locale() -> Lang {
    let [all, messages, lang] = ["LC_ALL", "LC_MESSAGES", "LANG"].map(config::variable);
    Lang::from_locale(all.as_deref(), messages.as_deref(), lang.as_deref())
}

/// The value of a flag among raw arguments, or of its variable. The last flag counts.
fn given(arguments: &[String], flag: &str, variable: &str) -> Option<String> {
    let flags = arguments.split(|argument| argument == "--").next().unwrap_or_default();
    let values = flags.iter().zip(flags.iter().skip(1).map(Some).chain([None])).filter_map(|(argument, next)| {
        let rest = argument.strip_prefix(flag)?;
        if rest.is_empty() { next.cloned() } else { rest.strip_prefix('=').map(str::to_owned) }
    });
    values.last().or_else(|| config::variable(variable))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(arguments: &[&str]) -> Option<String> {
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        given(&arguments, "--lang", "INVOICE_EXPORT_NO_SUCH_VARIABLE")
    }

    #[test]
    fn the_last_flag_before_the_dashes_counts() {
        assert_eq!(found(&["run", "--lang", "en", "--lang=zh", "--rum"]).as_deref(), Some("zh"));
        assert_eq!(found(&["--lang", "zh", "--language", "x"]).as_deref(), Some("zh"));
        assert_eq!(found(&["why", "--", "--lang", "zh"]), None);
        assert_eq!(found(&["run", "--lang"]), None);
    }
}
