//! Texts in both languages of this program.
//!
//! Every message is worded once, in the arm of the code that knows its facts, with the English and the
//! Chinese wording side by side: `text!("cannot open {file}", "无法打开 {file}")`. A [`Message`] is such a text
//! with a hint; [`Explain`] puts one in front of an error. `report` picks the language when it prints; JSON and CSV
//! get English. [`words!`](crate::words) declares the enums that are words of the state, of JSON and
//! of tables.

use std::error::Error as StdError;
use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use clap::builder::PossibleValue;

/// A language of the log and of the answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Lang {
    #[default]
    En,
    Zh,
}

impl Lang {
    /// The language of the locale that the variables name: the first one that is set and not empty decides.
    ///
    /// Chinese only if the locale's encoding is UTF-8: other terminals would show it as garbage.
    pub fn from_locale(lc_all: Option<&str>, lc_messages: Option<&str>, lang: Option<&str>) -> Self {
        let locale = [lc_all, lc_messages, lang].into_iter().flatten().find(|value| !value.is_empty());
        let locale = locale.unwrap_or_default().to_ascii_lowercase();
        let (name, encoding) = locale.split_once('.').unwrap_or((&locale, ""));
        let encoding = encoding.split('@').next().unwrap_or_default();
        let is_chinese = name.split(['_', '@']).next() == Some("zh");
        if is_chinese && matches!(encoding, "utf-8" | "utf8") { Self::Zh } else { Self::En }
    }
}

/// One statement, worded in both languages.
///
/// It has no `Display`, so that the compiler refuses a text within a text that is not quoted in its language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    en: String,
    zh: String,
}

impl Text {
    /// The same said in both languages.
    pub fn new(en: impl Into<String>, zh: impl Into<String>) -> Self {
        Self { en: en.into(), zh: zh.into() }
    }

    /// A name, a path or a number, which is the same in both languages.
    pub fn same(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { zh: text.clone(), en: text }
    }

    /// An error with this text in front of the error that led to it.
    pub fn caused_by(self, cause: impl Into<anyhow::Error>) -> anyhow::Error {
        Message::from(self).caused_by(cause)
    }

    /// Two statements about one thing.
    pub fn then(self, next: &Self) -> Self {
        Self { en: self.en + "; " + &next.en, zh: self.zh + "；" + &next.zh }
    }

    /// The wording in one language.
    pub fn in_lang(&self, lang: Lang) -> &str {
        match lang {
            Lang::En => &self.en,
            Lang::Zh => &self.zh,
        }
    }

    /// A message that says what to do about it.
    pub fn with_hint(self, hint: Text) -> Message {
        Message { what: self, hint: Some(hint) }
    }

    /// The texts in a row, with the separators of their languages between them.
    pub fn join(texts: &[Self], en: &str, zh: &str) -> Self {
        let joined = |lang, separator| texts.iter().map(|text| text.in_lang(lang)).collect::<Vec<_>>().join(separator);
        Self { en: joined(Lang::En, en), zh: joined(Lang::Zh, zh) }
    }
}

/// The English wording, the Chinese one, and the values that neither names in its braces. Behind a semicolon stand
/// the names of texts and words that are quoted, each in its language: `text!("rejected: {reason}", "无法导出: {reason}";
/// reason)`.
#[macro_export]
macro_rules! text {
    ($en:literal, $zh:literal; $($quoted:ident),+) => {{
        #[allow(clippy::clone_on_copy, reason = "words are copied, texts are not")]
        let ($($quoted,)+) = ($($crate::lang::Text::from($quoted.clone()),)+);
        let word = |lang| {
            $(#[allow(unused_variables, reason = "a hint need not name all of them")] let $quoted = $quoted.in_lang(lang);)+
            match lang {
                $crate::lang::Lang::En => format!($en),
                $crate::lang::Lang::Zh => format!($zh),
            }
        };
        $crate::lang::Text::new(word($crate::lang::Lang::En), word($crate::lang::Lang::Zh))
    }};
    ($en:literal, $zh:literal $(, $($values:tt)+)?) => {
        $crate::lang::Text::new(format!($en $(, $($values)+)?), format!($zh $(, $($values)+)?))
    };
}

/// A text and, behind a semicolon, its hint: `message! { "no index", "缺少索引"; "create it", "请创建" }`. Behind a
/// second one stand the names of texts that are quoted, as in [`text!`].
#[macro_export]
macro_rules! message {
    ($en:literal, $zh:literal $(, $values:expr)*; $hint_en:literal, $hint_zh:literal) => {
        $crate::text!($en, $zh $(, $values)*).with_hint($crate::text!($hint_en, $hint_zh))
    };
    ($en:literal, $zh:literal; $hint_en:literal, $hint_zh:literal; $($quoted:ident),+) => {
        $crate::text!($en, $zh; $($quoted),+).with_hint($crate::text!($hint_en, $hint_zh; $($quoted),+))
    };
}

/// What happened, and what can be done about it. As `Display` it is one line of English.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub what: Text,
    pub hint: Option<Text>,
}

impl Message {
    /// An error with this message in front of the error that led to it.
    pub fn caused_by(self, cause: impl Into<anyhow::Error>) -> anyhow::Error {
        anyhow::Error::new(ExplainedError { message: self, cause: Some(cause.into()) })
    }
}

impl Display for Message {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str(&self.what.en)?;
        self.hint.iter().try_for_each(|hint| write!(f, "; {}", hint.en))
    }
}

impl From<Text> for Message {
    fn from(what: Text) -> Self {
        Self { what, hint: None }
    }
}

/// The message and its hint as two statements.
impl From<Message> for Text {
    fn from(message: Message) -> Self {
        let Message { what, hint } = message;
        hint.iter().fold(what, Self::then)
    }
}

impl From<&Text> for Message {
    fn from(what: &Text) -> Self {
        what.clone().into()
    }
}

/// A duration, as precise as it is short.
pub fn span(duration: Duration) -> Text {
    let seconds = duration.as_secs();
    match duration.as_secs_f64() {
        short if short < 1.0 => text!("{} ms", "{} 毫秒", duration.as_millis().max(1)),
        _ if seconds < 60 && duration.subsec_nanos() == 0 => text!("{seconds} s", "{seconds} 秒"),
        short if short < 60.0 => text!("{short:.1} s", "{short:.1} 秒"),
        _ => {
            let units = [
                (seconds / 86_400, "天"),
                (seconds / 3_600 % 24, "小时"),
                (seconds / 60 % 60, "分钟"),
                (seconds % 60, "秒"),
            ];
            let counted =
                units.iter().filter(|(number, _)| *number > 0).map(|(number, unit)| format!("{number} {unit}"));
            let en = humantime::format_duration(Duration::from_secs(seconds)).to_string();
            Text { en, zh: counted.collect::<Vec<_>>().join(" ") }
        }
    }
}

/// The first characters of a text, with an ellipsis where it has more.
pub fn shortened(text: &str, at_most: usize) -> String {
    match text.char_indices().nth(at_most) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// An enum of words: a value is one word in the state, in JSON and in CSV, and a Chinese one in tables for people.
pub trait Word: Copy + PartialEq + 'static {
    /// Every value with its word and the Chinese for it.
    const WORDS: &'static [(Self, &'static str, &'static str)];

    /// None for a text that is none of the words.
    fn parse(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(_, en, _)| *en == word).map(|(value, ..)| *value)
    }

    /// The value as the command line takes it: by its word, and by the Chinese for it, which tables show.
    fn possible_value(self) -> Option<PossibleValue> {
        let (_, en, zh) = Self::WORDS.iter().find(|(value, ..)| *value == self)?;
        Some(PossibleValue::new(*en).alias(*zh))
    }
}

impl<W: Word> From<W> for Text {
    fn from(word: W) -> Self {
        let found = W::WORDS.iter().find(|(value, ..)| *value == word);
        found.map_or_else(|| Self::same(""), |(_, en, zh)| Self::new(*en, *zh))
    }
}

/// Declares an enum of words, each variant with its word and the Chinese for it: `Full = "full", "全量";`. They are
/// also the values that a flag of the command line takes.
#[macro_export]
macro_rules! words {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$doc:meta])* $value:ident = $en:literal, $zh:literal;)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$doc])* $value,)+ }

        impl $name {
            /// The word in the state, in JSON and in CSV.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$value => $en,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl $crate::lang::Word for $name {
            const WORDS: &'static [(Self, &'static str, &'static str)] = &[$((Self::$value, $en, $zh)),+];
        }

        impl clap::ValueEnum for $name {
            fn value_variants<'a>() -> &'a [Self] {
                &[$(Self::$value),+]
            }

            fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
                $crate::lang::Word::possible_value(*self)
            }
        }
    };
}

/// An error that is worded in both languages, with the error that led to it.
#[derive(Debug)]
pub struct ExplainedError {
    message: Message,
    cause: Option<anyhow::Error>,
}

impl ExplainedError {
    /// The message of this error alone, without its cause.
    pub fn message(&self) -> &Message {
        &self.message
    }
}

impl Display for ExplainedError {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        self.message.fmt(f)
    }
}

impl StdError for ExplainedError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.cause.as_ref().map(|cause| cause.as_ref() as &(dyn StdError + 'static))
    }
}

/// An error without a cause.
impl From<Message> for anyhow::Error {
    fn from(message: Message) -> Self {
        Self::new(ExplainedError { message, cause: None })
    }
}

impl From<Text> for anyhow::Error {
    fn from(text: Text) -> Self {
        Message::from(text).into()
    }
}

/// Puts a text in both languages in front of an error, as `anyhow::Context` does with one language.
///
/// The chain of such an error can be printed in either language: `anyhow`'s own context cannot be
/// asked for its type once it is inside a chain.
pub trait Explain<T> {
    /// # Errors
    /// The error of `self`, with the text or message in front.
    fn explain<M: Into<Message>>(self, message: impl FnOnce() -> M) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> Explain<T> for Result<T, E> {
    fn explain<M: Into<Message>>(self, message: impl FnOnce() -> M) -> anyhow::Result<T> {
        self.map_err(|cause| {
            anyhow::Error::new(ExplainedError { message: message().into(), cause: Some(cause.into()) })
        })
    }
}

impl<T> Explain<T> for Option<T> {
    fn explain<M: Into<Message>>(self, message: impl FnOnce() -> M) -> anyhow::Result<T> {
        self.ok_or_else(|| message().into().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_of_a_chain_keeps_both_its_wordings() {
        let file = "a.db";
        let error = Err::<(), _>(std::io::Error::from(std::io::ErrorKind::NotFound))
            .explain(|| text!("cannot open {file}", "无法打开 {file}"))
            .explain(|| text!("no state in {}", "{} 中没有状态", "/srv"))
            .unwrap_err();
        let zh: Vec<&str> = error
            .chain()
            .filter_map(|cause| cause.downcast_ref::<ExplainedError>())
            .map(|explained| explained.message().what.in_lang(Lang::Zh))
            .collect();
        assert_eq!(zh, ["/srv 中没有状态", "无法打开 a.db"]);
        assert_eq!(error.chain().map(ToString::to_string).next().as_deref(), Some("no state in /srv"));
        assert!(error.chain().any(|cause| cause.is::<std::io::Error>()));
    }

    #[test]
    fn a_text_within_a_text_is_in_its_language() {
        let reason = text!("late", "迟到");
        let tenant = "acme";
        let text = text!("tenant {tenant}: {reason}", "租户 {tenant}: {reason}"; reason);
        assert_eq!((text.in_lang(Lang::En), text.in_lang(Lang::Zh)), ("tenant acme: late", "租户 acme: 迟到"));
    }

    #[test]
    fn the_first_locale_variable_that_is_set_decides_the_language() {
        assert_eq!(Lang::from_locale(None, None, None), Lang::En);
        assert_eq!(Lang::from_locale(None, None, Some("zh_CN.UTF-8")), Lang::Zh);
        assert_eq!(Lang::from_locale(Some("C"), None, Some("zh_CN.UTF-8")), Lang::En);
        assert_eq!(Lang::from_locale(Some(""), Some("zh.utf8"), Some("en_US.UTF-8")), Lang::Zh);
        assert_eq!(Lang::from_locale(Some("é"), None, None), Lang::En);
    }

    #[test]
    fn a_chinese_locale_without_utf_8_gets_english() {
        for locale in ["zh_CN", "zh_CN.GB18030", "zh_TW.Big5", "zh@radical", "zhx.UTF-8"] {
            assert_eq!(Lang::from_locale(Some(locale), None, None), Lang::En, "{locale}");
        }
        assert_eq!(Lang::from_locale(Some("zh_CN.UTF-8@pinyin"), None, None), Lang::Zh);
    }

    #[test]
    fn durations_are_as_precise_as_they_are_short() {
        let both = |duration| {
            let text = span(duration);
            [Lang::En, Lang::Zh].map(|lang| text.in_lang(lang).to_owned())
        };
        assert_eq!(both(Duration::from_micros(20)), ["1 ms", "1 毫秒"]);
        assert_eq!(both(Duration::from_millis(12_345)), ["12.3 s", "12.3 秒"]);
        assert_eq!(both(Duration::from_secs(45)), ["45 s", "45 秒"]);
        assert_eq!(both(Duration::from_millis(3_725_900)), ["1h 2m 5s", "1 小时 2 分钟 5 秒"]);
        assert_eq!(both(Duration::from_secs(90_005)), ["1day 1h 5s", "1 天 1 小时 5 秒"]);
    }
}
