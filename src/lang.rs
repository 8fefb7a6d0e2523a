//! Texts in both languages of this program.
//!
//! Every message is worded once, in the arm of the code that knows its facts, with the English and the
//! Chinese wording side by side: `text!("cannot open {file}", "无法打开 {file}")`. [`Context`] puts such
//! a text in front of an error. `report` picks the language when it prints; JSON and CSV get English.
//! Enums whose values are words of the state, of JSON and of tables are declared with [`words!`](crate::words).

use std::error::Error as StdError;
use std::fmt::{self, Display, Formatter};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lang {
    #[default]
    En,
    Zh,
}

impl Lang {
    /// The first variable that is set and not empty decides, as for every program.
    pub fn from_locale(lc_all: Option<&str>, lc_messages: Option<&str>, lang: Option<&str>) -> Self {
        let locale = [lc_all, lc_messages, lang].into_iter().flatten().find(|value| !value.is_empty());
        match locale.and_then(|locale| locale.get(..2)) {
            Some(language) if language.eq_ignore_ascii_case("zh") => Self::Zh,
            Some(_) | None => Self::En,
        }
    }
}

/// One message, worded in both languages. As `Display` it is English.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    en: String,
    zh: String,
}

impl Text {
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
        anyhow::Error::new(Explained { text: self, cause: Some(cause.into()) })
    }

    /// Two statements about one thing.
    pub fn then(self, next: &Self) -> Self {
        Self { en: self.en + "; " + &next.en, zh: self.zh + "；" + &next.zh }
    }

    pub fn in_lang(&self, lang: Lang) -> &str {
        match lang {
            Lang::En => &self.en,
            Lang::Zh => &self.zh,
        }
    }
}

impl Display for Text {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str(&self.en)
    }
}

/// The English wording, the Chinese one, and the values that neither names in its braces. Behind a semicolon stand
/// the names of texts and words that are quoted, each in its language.
#[macro_export]
macro_rules! text {
    ($en:literal, $zh:literal; $($quoted:ident),+) => {{
        #[allow(clippy::clone_on_copy, reason = "words are copied, texts are not")]
        let ($($quoted,)+) = ($($crate::lang::Text::from($quoted.clone()),)+);
        let word = |lang| {
            $(let $quoted = $quoted.in_lang(lang);)+
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

/// An enum of words: a value is one word in the state, in JSON and in CSV, and a Chinese one in tables for people.
pub trait Word: Copy + PartialEq + 'static {
    /// Every value with its word and the Chinese for it.
    const WORDS: &'static [(Self, &'static str, &'static str)];

    /// None for a text that is none of the words.
    fn parse(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(_, en, _)| *en == word).map(|(value, ..)| *value)
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
                Some(clap::builder::PossibleValue::new(self.as_str()))
            }
        }
    };
}

/// An error that is worded in both languages, with the error that led to it.
#[derive(Debug)]
pub struct Explained {
    text: Text,
    cause: Option<anyhow::Error>,
}

impl Explained {
    pub fn text(&self) -> &Text {
        &self.text
    }
}

impl Display for Explained {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        self.text.fmt(f)
    }
}

impl StdError for Explained {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.cause.as_ref().map(|cause| cause.as_ref() as &(dyn StdError + 'static))
    }
}

/// An error without a cause.
impl From<Text> for anyhow::Error {
    fn from(text: Text) -> Self {
        Self::new(Explained { text, cause: None })
    }
}

/// Puts a text in both languages in front of an error, as `anyhow::Context` does with one language.
///
/// The chain of such an error can be printed in either language: `anyhow`'s own context cannot be
/// asked for its type once it is inside a chain.
pub trait Explain<T> {
    /// # Errors
    /// The error of `self`, with `text` in front.
    fn explain(self, text: impl FnOnce() -> Text) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> Explain<T> for Result<T, E> {
    fn explain(self, text: impl FnOnce() -> Text) -> anyhow::Result<T> {
        self.map_err(|cause| text().caused_by(cause))
    }
}

impl<T> Explain<T> for Option<T> {
    fn explain(self, text: impl FnOnce() -> Text) -> anyhow::Result<T> {
        self.ok_or_else(|| text().into())
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
            .filter_map(|cause| cause.downcast_ref::<Explained>())
            .map(|explained| explained.text().in_lang(Lang::Zh))
            .collect();
        assert_eq!(zh, ["/srv 中没有状态", "无法打开 a.db"]);
        assert_eq!(error.chain().map(ToString::to_string).next().as_deref(), Some("no state in /srv"));
        assert!(error.chain().any(|cause| cause.is::<std::io::Error>()));
    }
}
