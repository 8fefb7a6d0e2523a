//! What clap says of a wrong command line, in both languages. Its English is printed as clap words it; programs and
//! readers of Chinese get the wording of this file. `config` words the values that an option cannot have.

use clap::Error;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::lang::{Message, Text};

/// An error of clap as one message: what is wrong, and as the hint what may have been meant.
pub(super) fn message(error: &Error) -> Message {
    what(error).with_hint(Text::join(&tips(error), "; ", "；"))
}

/// A part of the error; empty if it has none of this kind.
fn value(error: &Error, kind: ContextKind) -> String {
    match error.get(kind) {
        Some(ContextValue::Strings(all)) => quoted(all),
        Some(value) => value.to_string(),
        None => String::new(),
    }
}

fn quoted(all: &[String]) -> String {
    all.iter().map(|one| format!("'{one}'")).collect::<Vec<_>>().join(", ")
}

/// What the help calls an argument in Chinese: one with dashes is an option.
fn noun(argument: &str) -> &'static str {
    if argument.trim_start_matches('\'').starts_with('-') { "选项" } else { "参数" }
}

fn what(error: &Error) -> Text {
    let (argument, value_of) = (value(error, ContextKind::InvalidArg), value(error, ContextKind::InvalidValue));
    let (command, noun) = (value(error, ContextKind::InvalidSubcommand), noun(&argument));
    match error.kind() {
        ErrorKind::UnknownArgument => text!("unexpected argument '{argument}'", "无法识别的{noun} '{argument}'"),
        ErrorKind::InvalidSubcommand => text!("unrecognized subcommand '{command}'", "没有子命令 '{command}'"),
        ErrorKind::InvalidValue if value_of.is_empty() => {
            text!("a value is required for '{argument}'", "{noun} '{argument}' 缺少值")
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            text!("invalid value '{value_of}' for '{argument}'", "{noun} '{argument}' 的值 '{value_of}' 无效")
        }
        ErrorKind::MissingRequiredArgument => text!("required but missing: {argument}", "缺少必需的{noun}: {argument}"),
        ErrorKind::MissingSubcommand => text!("'{command}' requires a subcommand", "'{command}' 后面缺少子命令"),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => text!("a subcommand is missing", "缺少子命令"),
        ErrorKind::ArgumentConflict => conflict(error, if argument.is_empty() { &command } else { &argument }),
        ErrorKind::InvalidUtf8 => text!("an argument is not UTF-8", "有参数不是 UTF-8 编码"),
        ErrorKind::TooManyValues => {
            text!("unexpected value '{value_of}' for '{argument}'", "{noun} '{argument}' 有多余的值 '{value_of}'")
        }
        _ => Text::same(first_line(error)),
    }
}

/// Two arguments that exclude each other, or one that is given twice.
fn conflict(error: &Error, argument: &str) -> Text {
    let noun = noun(argument);
    let prior = match error.get(ContextKind::PriorArg) {
        Some(ContextValue::String(prior)) if prior == argument => {
            return text!("'{argument}' cannot be used multiple times", "{noun} '{argument}' 不能重复使用");
        }
        Some(ContextValue::String(prior)) => quoted(std::slice::from_ref(prior)),
        _ => value(error, ContextKind::PriorArg),
    };
    text!("'{argument}' cannot be used with {prior}", "'{argument}' 不能与 {prior} 一起使用")
}

/// The error without its beginning, as clap words it.
fn first_line(error: &Error) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

/// The values that are possible, what may have been meant, and how the command is used.
fn tips(error: &Error) -> Vec<Text> {
    let mut tips = Vec::new();
    for kind in [ContextKind::ValidValue, ContextKind::ValidSubcommand] {
        if let Some(ContextValue::Strings(all)) = error.get(kind).filter(|_| is_listed(error))
            && !all.is_empty()
        {
            let all = all.join(", ");
            tips.push(text!("possible values: {all}", "可选值: {all}"));
        }
    }
    for kind in [ContextKind::SuggestedSubcommand, ContextKind::SuggestedArg, ContextKind::SuggestedValue] {
        let alike = value(error, kind);
        match error.get(kind) {
            Some(ContextValue::Strings(_)) => tips.push(text!("{alike} are similar", "相近的有 {alike}")),
            Some(_) => tips.push(text!("'{alike}' is similar", "相近的有 '{alike}'")),
            None => {}
        }
    }
    if let Some(ContextValue::StyledStrs(all)) = error.get(ContextKind::Suggested) {
        tips.extend(all.iter().map(|tip| suggested(error, &tip.to_string())));
    }
    let usage = value(error, ContextKind::Usage);
    if let Some(usage) = usage.strip_prefix("Usage: ") {
        tips.push(text!("usage: {usage}", "用法: {usage}"));
    }
    tips.push(text!("see --help", "详见 --help"));
    tips
}

fn is_listed(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::InvalidValue | ErrorKind::MissingSubcommand)
}

/// A tip that clap hands over as a sentence.
fn suggested(error: &Error, en: &str) -> Text {
    let argument = value(error, ContextKind::InvalidArg);
    let zh = match en.strip_suffix(" exists") {
        Some(other) => format!("可用 {other}"),
        None if en.contains(&format!("'-- {argument}'")) => {
            format!("要把 '{argument}' 作为值传入，请写成 '-- {argument}'")
        }
        None => en.to_owned(),
    };
    Text::new(en, zh)
}
