//! The settings of a configuration file, as values that apply where neither a flag nor a variable is given.
//!
//! A setting is an option that has a variable, or one of a few that have none: what belongs to one call alone, as
//! `--fresh` and `--since` do, is no key of a file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use clap::{Arg, ArgAction, Command};

use super::file::{ConfigFile, Fault, Setting, SettingValue};
use super::variables::{nearest, of_the_script};
use super::wrong_values::refusal_of;
use crate::lang::Text;
use crate::source::{self, Address};

/// Settings without a variable: how much is said, and what a monitor judges by.
const WITHOUT_VARIABLE: [&str; 6] = ["utc", "quiet", "no-progress", "stale-after", "max-rejects", "reject-older-than"];

/// The command line with the file's settings below flags and variables.
///
/// # Errors
/// Refuses a key that is unknown, given twice or no setting, and a value that the option would refuse.
pub fn with_settings(command: Command, file: &ConfigFile) -> anyhow::Result<Command> {
    let mut options = BTreeMap::new();
    add_options(&command, &mut options);
    let mut set = BTreeSet::new();
    file.settings.iter().try_fold(command, |command, setting| {
        if !set.insert(&setting.flag) {
            let twice = text!("{} is set twice", "{} 设置了两次", setting.flag);
            return Err(Fault::new(setting.line, twice).refusal(&file.path));
        }
        let option = option_of(setting, &options).map_err(|fault| fault.refusal(&file.path))?;
        let value = value_of(setting, option).map_err(|fault| fault.refusal(&file.path))?;
        // The program itself reads the script's variables, after clap.
        Ok(match of_the_script(&setting.flag) {
            Some(_) => command,
            None => with_default(command, &setting.flag, &value),
        })
    })
}

/// All options of the command and its subcommands, by their long flags. One flag can be a setting in one command and none
/// in another.
fn add_options(command: &Command, options: &mut BTreeMap<String, Arg>) {
    for option in command.get_arguments() {
        if let Some(long) = option.get_long().filter(|long| !options.get(*long).is_some_and(is_setting)) {
            options.insert(long.to_owned(), option.clone());
        }
    }
    command.get_subcommands().for_each(|command| add_options(command, options));
}

fn option_of<'a>(setting: &Setting, options: &'a BTreeMap<String, Arg>) -> Result<&'a Arg, Fault> {
    let flag = &setting.flag;
    let Some(option) = options.get(flag) else {
        let settings = options.values().filter(|option| is_setting(option)).filter_map(Arg::get_long);
        let meant = nearest(flag, settings).map(|known| text!("; did you mean {known}?", "；是否想写 {known}？"));
        let meant = meant.unwrap_or_else(|| Text::same(""));
        return Err(Fault::new(
            setting.line,
            text!("there is no setting {flag}{meant}", "没有 {flag} 这个设置{meant}"; meant),
        ));
    };
    if is_setting(option) {
        return Ok(option);
    }
    let what = text!(
        "--{flag} belongs to one call and is given on the command line alone",
        "--{flag} 只针对单次执行，只能写在命令行上"
    );
    Err(Fault::new(setting.line, what))
}

/// Whether an option can stand in a file. The one that names the file cannot.
pub(super) fn is_setting(option: &Arg) -> bool {
    let long = option.get_long().unwrap_or_default();
    WITHOUT_VARIABLE.contains(&long) || option.get_env().is_some() && long != "config"
}

/// The value as clap takes it, if the option would take it on the command line.
fn value_of(setting: &Setting, option: &Arg) -> Result<String, Fault> {
    let Setting { flag, value, line } = setting;
    let is_switch = matches!(option.get_action(), ArgAction::SetTrue);
    match value {
        SettingValue::Switch(set) if is_switch => Ok(set.to_string()),
        SettingValue::One(text) if !is_switch => {
            refuse_wrong_source(setting, text)?;
            refuse_relative_path(setting, option, text)?;
            let alone = option.clone().env(None::<&'static str>).global(false);
            let tried = Command::new("").no_binary_name(true).arg(alone);
            let tried = tried.try_get_matches_from([format!("--{flag}={text}")]);
            tried.map_err(|error| Fault::new(*line, refusal_of(flag, text, option, &error)))?;
            Ok(text.clone())
        }
        SettingValue::Switch(_) => {
            Err(Fault::new(*line, text!("{flag} takes a value in quotes", "{flag} 的值要写在引号里")))
        }
        SettingValue::One(_) => Err(Fault::new(
            *line,
            text!("{flag} is true or false, without quotes", "{flag} 只能是 true 或 false，不加引号"),
        )),
    }
}

/// Refuses what is no address of a source. A file may be readable by others, as a command line is, so it holds no
/// password.
fn refuse_wrong_source(setting: &Setting, text: &str) -> Result<(), Fault> {
    let is_secret = source::holds_password(text);
    match (setting.flag == "source").then(|| Address::parse(text)) {
        _ if is_secret => {}
        Some(Ok((_, Some(_)))) => {}
        Some(Ok((Address::File(path), None))) if !Path::new(&path).is_absolute() => {
            return Err(relative(setting, text));
        }
        Some(Err(fault)) => return Err(Fault::new(setting.line, fault.message())),
        Some(Ok(_)) | None => return Ok(()),
    }
    let what = text!("a password does not belong into this file", "密码不能写在这个文件里");
    Err(Fault::new(setting.line, what.with_hint(text!("use password-file", "请使用 password-file"))))
}

/// A file serves calls from any folder.
fn refuse_relative_path(setting: &Setting, option: &Arg, text: &str) -> Result<(), Fault> {
    let names_file =
        option.get_value_names().is_some_and(|names| names.iter().any(|name| *name == "FILE" || *name == "DIR"));
    if !names_file || Path::new(text).is_absolute() {
        return Ok(());
    }
    Err(relative(setting, text))
}

fn relative(setting: &Setting, text: &str) -> Fault {
    let flag = &setting.flag;
    let what = text!(
        "{flag} is {text:?}, and where that leads depends on the folder of the call",
        "{flag} 的值是 {text:?}，其位置取决于执行时所在的目录"
    );
    Fault::new(setting.line, what.with_hint(text!("write the whole path, from /", "请写以 / 开头的完整路径")))
}

/// Gives the option another default in every command that has it.
fn with_default(command: Command, flag: &str, value: &str) -> Command {
    let changed = |option: Arg| match option.get_long() {
        Some(long) if long == flag && is_setting(&option) => option.default_value(value.to_owned()),
        _ => option,
    };
    command.mut_args(changed).mut_subcommands(|command| with_default(command, flag, value))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    /// What is said with one call and cannot stand in a file.
    const OF_ONE_CALL: [&str; 26] = [
        "adopt-tree",
        "against-source",
        "all",
        "config",
        "deep",
        "documents",
        "files",
        "fresh",
        "hash",
        "kind",
        "limit",
        "no-config",
        "null",
        "overwrite",
        "prune",
        "prune-leftovers",
        "prune-up-to",
        "reason",
        "rejects",
        "repair",
        "since",
        "status",
        "tenant",
        "until",
        "verbose",
        "yes",
    ];

    #[test]
    fn each_option_is_a_setting_or_belongs_to_one_call() {
        let mut options = BTreeMap::new();
        add_options(&Cli::command(), &mut options);
        let others = options.values().filter(|option| !is_setting(option)).filter_map(Arg::get_long);
        let others: BTreeSet<&str> = others.collect();
        assert_eq!(others, OF_ONE_CALL.into_iter().collect());
        for flag in WITHOUT_VARIABLE {
            assert!(options[flag].get_env().is_none(), "{flag} has a variable");
        }
    }
}
