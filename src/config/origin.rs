//! Which value each setting has, and where that comes from: a flag, a variable, the file or the default.

use std::collections::BTreeSet;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};

use super::file::{ConfigFile, SettingValue};
use super::layer::is_setting;
use super::variables::{of_the_script, variable};

/// A setting as a command would find it now.
#[derive(Debug)]
pub struct EffectiveSetting {
    /// The long flag.
    pub name: String,
    /// `None` of a setting without a value and without a default.
    pub value: Option<String>,
    pub origin: Origin,
}

/// Where a value comes from.
#[derive(Debug)]
pub enum Origin {
    Flag,
    Variable(String),
    /// The line of the file; the first is 1.
    File(usize),
    Default,
}

/// All settings of the command line, in the order of the help, each once.
pub fn effective_settings(command: &Command, file: Option<&ConfigFile>, matches: &ArgMatches) -> Vec<EffectiveSetting> {
    setting_options(command).into_iter().map(|option| effective(option, file, matches)).collect()
}

/// The settings of the command and, after them, of its subcommands, each once.
pub fn setting_options(command: &Command) -> Vec<&Arg> {
    let mut known = BTreeSet::new();
    with_repetitions(command).into_iter().filter(|option| known.insert(option.get_long())).collect()
}

/// The settings in the same order. Several commands have the same ones.
fn with_repetitions(command: &Command) -> Vec<&Arg> {
    let own = command.get_arguments().filter(|option| is_setting(option));
    own.chain(command.get_subcommands().flat_map(with_repetitions)).collect()
}

fn effective(option: &Arg, file: Option<&ConfigFile>, matches: &ArgMatches) -> EffectiveSetting {
    let name = option.get_long().unwrap_or_default().to_owned();
    let of_flag = || Some((flag_value(option, matches)?, Origin::Flag));
    let of_variable = || {
        let own = option.get_env().and_then(|own| own.to_str()).filter(|own| variable(own).is_some());
        let set = own.or_else(|| of_the_script(&name))?;
        Some((variable(set)?, Origin::Variable(set.to_owned())))
    };
    let of_file = || {
        let setting = file?.settings.iter().find(|setting| setting.flag == name)?;
        let value = match &setting.value {
            SettingValue::One(text) => text.clone(),
            SettingValue::Switch(set) => set.to_string(),
        };
        Some((value, Origin::File(setting.line)))
    };
    match of_flag().or_else(of_variable).or_else(of_file) {
        Some((value, origin)) => EffectiveSetting { name, value: Some(value), origin },
        None => EffectiveSetting { name, value: default(option), origin: Origin::Default },
    }
}

/// The value on the command line, if the option stands there.
fn flag_value(option: &Arg, matches: &ArgMatches) -> Option<String> {
    let id = option.get_id();
    let given =
        matches.ids().any(|known| known == id) && matches.value_source(id.as_str()) == Some(ValueSource::CommandLine);
    let raw = if given { matches.get_raw(id.as_str()) } else { None };
    raw?.next().map(|value| value.to_string_lossy().into_owned())
}

fn default(option: &Arg) -> Option<String> {
    let value = option.get_default_values().first()?;
    Some(value.to_string_lossy().into_owned())
}
