//! What clap says of a wrong command line, in both languages. Its English is printed as clap words it; programs and
//! readers of Chinese get the wording of this file.

use std::error::Error as StdError;

use clap::Error;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::lang::{Lang, Message, Text};

/// An error of clap as one message: what is wrong, and as the hint what may have been meant.
pub(super) fn message(error: &Error) -> Message {
    let tips = tips(error);
    let hint = (!tips.is_empty()).then(|| Text::join(&tips, "; ", "；"));
    Message { what: what(error), hint }
}

/// The error in Chinese, laid out as clap does.
pub(super) fn chinese(error: &Error) -> String {
    let tips: String = tips(error).iter().map(|tip| format!("\n  提示: {}", tip.in_lang(Lang::Zh))).collect();
    let tips = if tips.is_empty() { tips } else { tips + "\n" };
    let usage = value(error, ContextKind::Usage);
    let usage = usage.strip_prefix("Usage: ").map(|usage| format!("\n用法: {usage}\n")).unwrap_or_default();
    format!("错误: {}\n{tips}{usage}\n详细说明请用 '--help'。\n", what(error).in_lang(Lang::Zh))
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

fn what(error: &Error) -> Text {
    let (argument, value_of) = (value(error, ContextKind::InvalidArg), value(error, ContextKind::InvalidValue));
    let command = value(error, ContextKind::InvalidSubcommand);
    match error.kind() {
        ErrorKind::UnknownArgument => text!("unexpected argument '{argument}'", "无法识别的参数 '{argument}'"),
        ErrorKind::InvalidSubcommand => text!("unrecognized subcommand '{command}'", "没有子命令 '{command}'"),
        ErrorKind::InvalidValue if value_of.is_empty() => {
            text!("a value is required for '{argument}'", "参数 '{argument}' 缺少值")
        }
        ErrorKind::InvalidValue => {
            text!("invalid value '{value_of}' for '{argument}'", "参数 '{argument}' 的值 '{value_of}' 无效")
        }
        ErrorKind::ValueValidation => {
            let why = why(error, &argument);
            text!(
                "invalid value '{value_of}' for '{argument}': {why}",
                "参数 '{argument}' 的值 '{value_of}' 无效: {why}"; why
            )
        }
        ErrorKind::MissingRequiredArgument => text!("required but missing: {argument}", "缺少必需的参数: {argument}"),
        ErrorKind::MissingSubcommand => text!("'{command}' requires a subcommand", "'{command}' 后面缺少子命令"),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => text!("a subcommand is missing", "缺少子命令"),
        ErrorKind::ArgumentConflict => conflict(error, if argument.is_empty() { &command } else { &argument }),
        ErrorKind::InvalidUtf8 => text!("an argument is not UTF-8", "有参数不是 UTF-8 编码"),
        ErrorKind::TooManyValues => {
            text!("unexpected value '{value_of}' for '{argument}'", "参数 '{argument}' 有多余的值 '{value_of}'")
        }
        _ => Text::same(first_line(error)),
    }
}

/// Two arguments that exclude each other, or one that is given twice.
fn conflict(error: &Error, argument: &str) -> Text {
    let prior = match error.get(ContextKind::PriorArg) {
        Some(ContextValue::String(prior)) if prior == argument => {
            return text!("'{argument}' cannot be used multiple times", "参数 '{argument}' 不能重复使用");
        }
        Some(ContextValue::String(prior)) => quoted(std::slice::from_ref(prior)),
        _ => value(error, ContextKind::PriorArg),
    };
    text!("'{argument}' cannot be used with {prior}", "'{argument}' 不能与 {prior} 一起使用")
}

/// Why a value is none of its kind. The parsers of values say it in English; in Chinese the value's name in `--help`
/// tells what is expected.
fn why(error: &Error, argument: &str) -> Text {
    let en = error.source().map(ToString::to_string).unwrap_or_default();
    let zh = match (argument, en.split_once(" is not in ")) {
        (_, Some((_, range))) => format!("允许的范围是 {range}"),
        (time, _) if time.contains("<TIME>") => "应为时长，例如 30s、5m、2h".to_owned(),
        (size, _) if size.contains("<SIZE>") => "应为大小，例如 64MiB".to_owned(),
        (number, _) if number.contains("<N>") => "应为非负整数".to_owned(),
        _ => en.clone(),
    };
    Text::new(en, zh)
}

/// The error without its beginning, as clap words it.
fn first_line(error: &Error) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

/// The values that are possible, and what may have been meant.
fn tips(error: &Error) -> Vec<Text> {
    let mut tips = Vec::new();
    for kind in [ContextKind::ValidValue, ContextKind::ValidSubcommand] {
        if let Some(ContextValue::Strings(all)) = error.get(kind).filter(|_| is_listed(error)) {
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
