//! The variables of the environment: an empty one counts as unset, and one that is called like ours and is not known
//! is a mistype.

use std::ffi::{OsStr, OsString};

use clap::Command;

use crate::lang::Message;

/// The beginning of every name of ours.
const PREFIX: &str = "INVOICE_EXPORT_";
/// Names of ours that the program does not read: they are for the scripts and the tests of the repository.
const OF_SCRIPTS: [&str; 7] =
    ["DEV_DB", "DEV_DB_ROWS", "FAULTS", "MYSQL", "SEED", "TEST_OWNS_A_SERVER", "WRITE_DOCUMENTS"];
/// Variables of the script, which have no prefix, with the options that they stand for.
const OF_THE_SCRIPT: [(&str, &str); 2] = [("EXPORT_MODE", "mode"), ("DRY_RUN", "dry-run")];
/// Of 1, which is the same name. A mistyped name is nearer than this, an arbitrary one is not.
const LIKE: f64 = 0.8;

/// A variable of the environment; None if it is unset, empty or not UTF-8.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The command line without the variables that are empty, which clap would take for values.
pub fn without_empty_variables(command: Command) -> Command {
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    command
        .mut_args(|flag| if flag.get_env().is_some_and(is_empty) { flag.env(None::<&'static str>) } else { flag })
        .mut_subcommands(without_empty_variables)
}

/// A warning for each variable that is set, is called like ours and has no effect.
pub fn unknown_variables(command: &Command) -> Vec<Message> {
    let mut known = OF_SCRIPTS.map(|name| format!("{PREFIX}{name}")).to_vec();
    let ours = known.len();
    add_names(command, &mut known);
    let set = std::env::vars_os().filter(|(_, value)| !value.is_empty()).map(|(name, _)| name);
    let mut unknown: Vec<String> = set.filter_map(|name| unknown_name(&name, &known)).collect();
    unknown.sort_unstable();
    // The prefix, which is the same in all, would make all alike.
    let known: Vec<_> = known[ours..].iter().filter_map(|name| name.strip_prefix(PREFIX)).collect();
    let meant = |name: &str| nearest(name.strip_prefix(PREFIX)?, known.iter().copied());
    unknown.iter().map(|name| message(name, meant(name))).collect()
}

/// The script's variable for an option, if it is set.
pub(super) fn of_the_script(flag: &str) -> Option<&'static str> {
    let (name, _) = OF_THE_SCRIPT.iter().find(|(_, option)| *option == flag)?;
    variable(name).map(|_| *name)
}

/// The names of the variables that are set and meant for this program, or for the script that it replaces.
pub fn set_variables() -> impl Iterator<Item = OsString> {
    let ours = |name: &OsString| {
        let name = name.to_string_lossy();
        name.starts_with(PREFIX) || OF_THE_SCRIPT.iter().any(|(script, _)| *script == name)
    };
    std::env::vars_os().map(|(name, _)| name).filter(ours)
}

/// The names of all variables that the command and its subcommands read.
fn add_names(command: &Command, names: &mut Vec<String>) {
    names.extend(command.get_arguments().filter_map(|flag| flag.get_env()?.to_str().map(str::to_owned)));
    command.get_subcommands().for_each(|command| add_names(command, names));
}

fn unknown_name(name: &OsString, known: &[String]) -> Option<String> {
    let name = name.to_string_lossy();
    (name.starts_with(PREFIX) && !known.iter().any(|known| *known == name)).then(|| name.into_owned())
}

/// The known name that was probably meant.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let all = known.map(|known| (strsim::jaro(known, name), known));
    all.filter(|(likeness, _)| *likeness > LIKE)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, name)| name)
}

/// The value is not shown, since it may hold a password.
fn message(name: &str, nearest: Option<&str>) -> Message {
    let unknown = text!("the variable {name} is not known and has no effect", "变量 {name} 无法识别，不起作用");
    unknown.with_hint(match nearest {
        Some(nearest) => text!("{PREFIX}{nearest} is probably meant", "可能应为 {PREFIX}{nearest}"),
        None => text!("`--help` of each command names its variables", "各命令的 `--help` 列出了可用的变量"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_name_finds_the_known_one_and_an_arbitrary_name_finds_none() {
        let found = |name: &str| nearest(name, ["OVERLAP", "OUTPUT", "RETRY_FOR", "READ_TIMEOUT"].into_iter());
        assert_eq!(found("OVERLAPP"), Some("OVERLAP"));
        assert_eq!(found("RETRYFOR"), Some("RETRY_FOR"));
        assert_eq!(found("TIMEOUT_READ"), None);
        assert_eq!(found(""), None);
    }
}
