//! Texts in both languages of this program.
//!
//! Every message is worded once, in the arm of the code that knows its facts, with the English and the
//! Chinese wording side by side: `text!("cannot open {file}", "无法打开 {file}")`. [`Context`] puts such
//! a text in front of an error. `report` picks the language when it prints; JSON and CSV get English.

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

/// The English wording, the Chinese one, and the values that neither names in its braces.
#[macro_export]
macro_rules! text {
    ($en:literal, $zh:literal $(, $($values:tt)+)?) => {
        $crate::lang::Text::new(format!($en $(, $($values)+)?), format!($zh $(, $($values)+)?))
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
