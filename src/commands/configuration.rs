//! `config`: each setting with its origin, a file to begin with, and whether the file is right.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches, CommandFactory};

use crate::cli::{self, Cli, ConfigCommand, Init};
use crate::config::{self, COLUMN_SUFFIX, ConfigFile, EffectiveSetting, Origin};
use crate::lang::{Explain, Lang, Text};
use crate::refusal::Refusal;
use crate::report::Reporter;
use crate::report::table::{Cell, Columns};
use crate::source;

/// A new file is for its owner and the owner's group.
const MODE: u32 = 0o640;
/// Characters of a line of the comments in a new file.
const WIDTH: usize = 96;

/// Carries out one of the subcommands. A file that is wrong was refused before.
pub(super) fn run(
    command: &ConfigCommand,
    file: Option<&ConfigFile>,
    matches: &ArgMatches,
    lang: Lang,
    reporter: &Reporter,
) -> anyhow::Result<u8> {
    match command {
        ConfigCommand::Show => show(file, matches.subcommand().map_or(matches, |(_, matches)| matches), reporter),
        ConfigCommand::Init(args) => init(args, lang, reporter)?,
        ConfigCommand::Check => check(file, reporter)?,
    }
    Ok(0)
}

/// One line for each setting.
fn show(file: Option<&ConfigFile>, matches: &ArgMatches, reporter: &Reporter) {
    let path = file.map(|file| file.path.as_path());
    let columns = Columns::default()
        .column("name", "名称", |setting: &EffectiveSetting| Text::same(&setting.name).into())
        .column("value", "值", |setting| setting.value.as_deref().map(shown).into())
        .column("origin", "来源", |setting| origin(&setting.origin, path).into());
    let mut settings = config::effective_settings(&Cli::command(), file, matches);
    settings.extend(config::password_variable());
    reporter.table(&columns.table(&settings));
}

/// A secret is not shown, only that it is set.
fn shown(value: &str) -> Cell {
    if source::holds_password(value) { text!("set", "已设置").into() } else { Text::same(value).into() }
}

fn origin(origin: &Origin, file: Option<&Path>) -> Text {
    match (origin, file) {
        (Origin::Flag, _) => text!("flag", "命令行"),
        (Origin::Variable(name), _) => Text::same(name),
        (Origin::File(line), Some(file)) => {
            let file = file.display();
            text!("{file}, line {line}", "{file} 第 {line} 行")
        }
        (Origin::Default | Origin::File(_), _) => text!("default", "默认"),
    }
}

/// Says that the file is right, or that there is none.
fn check(file: Option<&ConfigFile>, reporter: &Reporter) -> anyhow::Result<()> {
    let Some(ConfigFile { path, settings }) = file else {
        let looked: Vec<_> = config::places().iter().map(|path| Text::same(path.display().to_string())).collect();
        let looked = Text::join(&looked, ", ", "、");
        let what =
            text!("there is no configuration file: looked for {looked}", "没有配置文件；已查找 {looked}"; looked);
        return Err(Refusal::usage(
            what.with_hint(text!("write one with: invoice-export config init", "可用 invoice-export config init 生成")),
        ));
    };
    let (path, count) = (path.display(), settings.len());
    reporter.line(&text!("{path} is right; settings: {count}", "{path} 正确；设置项: {count}"));
    Ok(())
}

/// Writes a file in which every setting is a comment.
fn init(args: &Init, lang: Lang, reporter: &Reporter) -> anyhow::Result<()> {
    let path = args.file.clone().unwrap_or_else(default_place);
    let cannot = || text!("cannot write {}", "无法写入 {}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).explain(cannot)?;
    }
    let opened = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&path);
    if opened.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::AlreadyExists) {
        let path = path.display();
        return Err(Refusal::usage(message! {
            "{path} is already there", "{path} 已存在";
            "edit it, or name another file: invoice-export config init FILE",
            "请直接编辑，或指定其他文件: invoice-export config init FILE"
        }));
    }
    let mut file = opened.explain(cannot)?;
    file.write_all(commented(lang).as_bytes()).and_then(|()| file.sync_all()).explain(cannot)?;
    let path = path.display();
    reporter.remark(&text!(
        "{path} is written: take the # away before what you want to set",
        "已写入 {path}: 需要设置的项，去掉行首的 # 即可"
    ));
    Ok(())
}

/// The machine's file for root, the user's own for others.
fn default_place() -> PathBuf {
    let mut places = config::places();
    if rustix::process::geteuid().is_root() { places.pop() } else { places.into_iter().next() }.unwrap_or_default()
}

/// Every setting with its help and its default, as comments.
fn commented(lang: Lang) -> String {
    let plain = Cli::command();
    let command = match lang {
        Lang::En => plain,
        Lang::Zh => cli::in_chinese(plain),
    };
    let head = text!(
        "# Configuration of invoice-export. A flag comes before a variable, a variable before this file.\n",
        "# invoice-export 的配置文件。命令行优先于环境变量，环境变量优先于本文件。\n"
    );
    let mut written = head.in_lang(lang).to_owned();
    let settings = config::setting_options(&command);
    let (columns, others): (Vec<&Arg>, Vec<&Arg>) = settings.into_iter().partition(|option| column(option).is_some());
    others.into_iter().for_each(|option| add(&mut written, option, option.get_long().unwrap_or_default()));
    written.push_str("\n# [columns]\n");
    columns.into_iter().for_each(|option| add(&mut written, option, column(option).unwrap_or_default()));
    written
}

/// The key of a column in its table.
fn column(option: &Arg) -> Option<&str> {
    option.get_long()?.strip_suffix(COLUMN_SUFFIX)
}

fn add(written: &mut String, option: &Arg, key: &str) {
    written.push('\n');
    let help = option.get_help().map(ToString::to_string).unwrap_or_default();
    for line in wrapped(&help) {
        let _ = writeln!(written, "# {line}");
    }
    let default = option.get_default_values().first().map(|value| value.to_string_lossy().into_owned());
    let value = match default {
        _ if !option.get_action().takes_values() => "false".to_owned(),
        Some(number) if number.parse::<u64>().is_ok() => number,
        Some(text) => format!("{text:?}"),
        None => "\"\"".to_owned(),
    };
    let _ = writeln!(written, "# {key} = {value}");
}

/// Lines of words, none longer than the width unless a word is.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().filter(|line| line.is_empty() || line.len() + word.len() < WIDTH);
        match line {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(word.to_owned()),
        }
    }
    lines
}
