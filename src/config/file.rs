//! The configuration file: where it is looked for, who may have written it, and what its lines set.
//!
//! The first of these that there is, is read, and no other: the one of `--config`, the one of `INVOICE_EXPORT_CONFIG`,
//! the user's, the machine's. What its keys mean is decided in `layer.rs`.

use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::variables::variable;
use crate::fs::input::read_text;
use crate::fs::route::{self, Exposure};
use crate::lang::Message;
use crate::refusal::{Distrust, Refusal, TextMark};

/// The table of the names of columns.
const COLUMNS: &str = "columns";
/// What the flag of a column ends in, which its key in the table lacks.
pub const COLUMN_SUFFIX: &str = "-column";
/// In the home folder, and the machine's.
const OF_USER: &str = ".config/invoice-export/config.toml";
const OF_MACHINE: &str = "/etc/invoice-export/config.toml";

/// A file that was read.
#[derive(Debug)]
pub struct ConfigFile {
    pub path: PathBuf,
    pub settings: Vec<Setting>,
}

/// One line of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Setting {
    /// The long flag that it sets.
    pub flag: String,
    pub value: SettingValue,
    /// The first line of the file is 1.
    pub line: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub enum SettingValue {
    /// A text or a number, as it would stand on the command line.
    One(String),
    Switch(bool),
}

impl ConfigFile {
    /// The file that the command line or its variable names, else the user's, else the machine's.
    ///
    /// # Errors
    /// Refuses a file that is named and missing, one that another user can change, and what is not TOML.
    pub fn find(named: Option<PathBuf>) -> anyhow::Result<Option<Self>> {
        match named.or_else(|| places().into_iter().find(|path| path.exists())) {
            Some(path) => Self::read(path).map(Some),
            None => Ok(None),
        }
    }

    /// The text that the file sets a flag to.
    pub fn text(&self, flag: &str) -> Option<&str> {
        self.settings.iter().find(|setting| setting.flag == flag).and_then(|setting| match &setting.value {
            SettingValue::One(text) => Some(text.as_str()),
            SettingValue::Switch(_) => None,
        })
    }

    fn read(path: PathBuf) -> anyhow::Result<Self> {
        let cannot = || text!("cannot read the configuration {}", "无法读取配置文件 {}", path.display());
        let content = read_text(&path).map_err(|error| Refusal::usage_because(cannot(), error))?;
        refuse_what_others_can_change(&path)?;
        let content = content.map_err(|mark| Refusal::usage(mark.text().with_hint(TextMark::remedy())))?;
        let text = String::from_utf8(content).map_err(|error| Refusal::usage_because(cannot(), error.into()))?;
        let settings = parse(&text).map_err(|fault| fault.refusal(&path))?;
        Ok(Self { path, settings })
    }
}

/// Where a file is looked for that is not named, in this order: the user's, the machine's.
pub fn places() -> Vec<PathBuf> {
    let of_user = variable("HOME").map(|home| Path::new(&home).join(OF_USER));
    of_user.into_iter().chain([PathBuf::from(OF_MACHINE)]).collect()
}

/// A file that another user may have written could name another server, or another output.
fn refuse_what_others_can_change(path: &Path) -> anyhow::Result<()> {
    match route::exposure_of_file(path) {
        Ok(Exposure::None) => Ok(()),
        _ => Err(Refusal::Untrusted { path: path.to_path_buf(), why: Distrust::Configuration }.into()),
    }
}

/// What is wrong with a file, and in which line. The first line is 1.
#[derive(Debug)]
pub(super) struct Fault {
    line: usize,
    message: Message,
}

impl Fault {
    pub(super) fn new(line: usize, message: impl Into<Message>) -> Self {
        Self { line, message: message.into() }
    }

    /// The refusal, which names file and line.
    pub(super) fn refusal(self, path: &Path) -> anyhow::Error {
        let (path, Self { line, message: Message { what, hint } }) = (path.display(), self);
        let what = text!("{path}, line {line}: {what}", "{path} 第 {line} 行: {what}"; what);
        Refusal::usage(Message { what, hint })
    }
}

/// The settings in the order of their lines.
fn parse(text: &str) -> Result<Vec<Setting>, Fault> {
    let line_at = |place: usize| text[..place.min(text.len())].matches('\n').count() + 1;
    let table = DeTable::parse(text).map_err(|error| {
        let line = line_at(error.span().map_or(0, |span| span.start));
        Fault::new(line, text!("this is not TOML: {}", "不是合法的 TOML: {}", error.message()))
    })?;
    let mut settings = Vec::new();
    for (key, value) in table.get_ref() {
        let line = line_at(key.span().start);
        match value.get_ref() {
            DeValue::Table(columns) if key.get_ref() == COLUMNS => {
                for (column, name) in columns {
                    let line = line_at(column.span().start);
                    settings.push(Setting {
                        flag: format!("{}{COLUMN_SUFFIX}", column.get_ref()),
                        value: plain(name, line)?,
                        line,
                    });
                }
            }
            _ => settings.push(Setting { flag: key.get_ref().to_string(), value: plain(value, line)?, line }),
        }
    }
    settings.sort_by_key(|setting| setting.line);
    Ok(settings)
}

fn plain(value: &Spanned<DeValue<'_>>, line: usize) -> Result<SettingValue, Fault> {
    match value.get_ref() {
        DeValue::String(text) => Ok(SettingValue::One(text.to_string())),
        DeValue::Integer(number) if number.radix() == 10 => Ok(SettingValue::One(number.as_str().to_owned())),
        DeValue::Boolean(set) => Ok(SettingValue::Switch(*set)),
        _ => Err(Fault::new(
            line,
            text!(
                "a value is a text in quotes, a whole number, true or false",
                "值只能是带引号的文本、整数、true 或 false"
            ),
        )),
    }
}
