//! Values that an option cannot have: the refusal names the option, or the variable that it came from, the value, and
//! one that would do. clap's own sentence is English alone, and names the option where a variable is wrong.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, CommandFactory};

use super::variable;
use crate::cli::Cli;
use crate::lang::{Message, Text};

/// The refusal of a value, if this is clap's error of one. A value that may be a secret must be gone from the error.
pub fn wrong_value(error: &clap::Error) -> Option<Message> {
    if !matches!(error.kind(), ErrorKind::InvalidValue | ErrorKind::ValueValidation) {
        return None;
    }
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let (given_as, value) = (text(ContextKind::InvalidArg)?, text(ContextKind::InvalidValue)?);
    let option = find(&Cli::command(), given_as)?;
    if value.is_empty() {
        return None;
    }
    let name = if is_on_command_line(&option) { None } else { variable_of(&option) };
    let name = name.unwrap_or_else(|| flag_of(&option));
    Some(refusal_of(&name, value, &option, error))
}

/// A value that the option cannot have, as clap's error shows it, with one that it can.
pub(super) fn refusal_of(name: &str, value: &str, option: &Arg, error: &clap::Error) -> Message {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    let range = cause.as_deref().and_then(|cause| cause.split_once(" is not in "));
    let what = match range.filter(|_| value.parse::<i64>().is_ok()) {
        // A number outside its limits.
        Some((number, range)) => {
            let limits = Text::new(format!("{number} is not in {range}"), format!("允许的范围是 {range}"));
            text!("{name} cannot be {value:?}: {limits}", "{name} 的值不能是 {value:?}: {limits}"; limits)
        }
        None => text!("{name} cannot be {value:?}", "{name} 的值不能是 {value:?}"),
    };
    let known = match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(known)) if option.get_action().takes_values() => known.join(", "),
        _ => String::new(),
    };
    what.with_hint(right_value(option, &known))
}

/// A value that the option can have, in the words of its help.
fn right_value(option: &Arg, known: &str) -> Text {
    if !known.is_empty() {
        return text!("write one of {known}", "可用的值: {known}");
    }
    let of_option = option.get_default_values().first().and_then(|value| value.to_str());
    match option.get_value_names().and_then(|names| names.first()).map(|name| name.as_str()) {
        _ if !option.get_action().takes_values() => text!("write true or false", "请写 true 或 false"),
        Some("TIME") => {
            let example = of_option.unwrap_or("2d");
            text!(
                "write a length of time, for example {example}, 90s or \"1h 30m\"",
                "请写一段时长，例如 {example}、90s 或 \"1h 30m\""
            )
        }
        Some("SIZE") => {
            let example = of_option.unwrap_or("256MiB");
            text!("write a size, for example {example} or 64KB", "请写大小，例如 {example} 或 64KB")
        }
        _ => {
            let example = of_option.unwrap_or("10");
            text!("write a whole number, for example {example}", "请写整数，例如 {example}")
        }
    }
}

/// What an operator gave for this option: the option itself, or its variable.
pub(super) fn given_as(matches: &ArgMatches, id: &str) -> String {
    let command = Cli::command();
    let option = command.get_arguments().find(|option| option.get_id() == id);
    match (option, matches.value_source(id)) {
        (Some(option), Some(ValueSource::EnvVariable)) => variable_of(option).unwrap_or_else(|| flag_of(option)),
        (Some(option), _) => flag_of(option),
        (None, _) => id.to_owned(),
    }
}

/// The option that clap's error names, as `--overlap <TIME>`, in the first command that has it.
fn find(command: &Command, given_as: &str) -> Option<Arg> {
    let long = given_as.split(' ').next()?.strip_prefix("--")?;
    let own = command.get_arguments().find(|option| option.get_long() == Some(long)).cloned();
    own.or_else(|| command.get_subcommands().find_map(|command| find(command, given_as)))
}

fn flag_of(option: &Arg) -> String {
    format!("--{}", option.get_long().unwrap_or(option.get_id().as_str()))
}

/// The option's variable, if it is set.
fn variable_of(option: &Arg) -> Option<String> {
    let name = option.get_env()?.to_str()?;
    variable(name).map(|_| name.to_owned())
}

/// An option on the command line comes before its variable.
fn is_on_command_line(option: &Arg) -> bool {
    let flag = flag_of(option);
    let is_flag =
        |argument: &str| argument.strip_prefix(&flag).is_some_and(|rest| rest.is_empty() || rest.starts_with('='));
    std::env::args_os().any(|argument| argument.to_str().is_some_and(is_flag))
}
