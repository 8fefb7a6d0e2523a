//! Keeps passwords out of clap's errors, which repeat an argument that is in the wrong place: a source
//! without its `--source`, for example.

use clap::error::{ContextKind, ContextValue};

use crate::lang::Lang;

/// The same error, with what could be a source's address left out.
pub(super) fn redacted(mut error: clap::Error, lang: Lang) -> clap::Error {
    let hidden = text!("(not shown, since it may hold a password)", "（可能含有密码，不显示）");
    let doubtful: Vec<ContextKind> =
        error.context().filter(|(_, value)| is_like_an_address(&value.to_string())).map(|(kind, _)| kind).collect();
    for kind in doubtful {
        // clap makes its sentence without a value that is removed, so a text gets another one.
        if let Some(ContextValue::String(_)) = error.remove(kind) {
            error.insert(kind, ContextValue::String(hidden.in_lang(lang).to_owned()));
        }
    }
    error
}

fn is_like_an_address(text: &str) -> bool {
    text.contains("//") || text.contains('@') || text.to_ascii_lowercase().contains("mysql:")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    fn text(arguments: &[&str]) -> String {
        let arguments = ["invoice-export"].iter().chain(arguments);
        redacted(Cli::command().try_get_matches_from(arguments).unwrap_err(), Lang::En).to_string()
    }

    #[test]
    fn an_address_in_the_wrong_place_is_not_repeated() {
        for address in ["mysql://u:Hush1@h/db", "MySQL:u:Hush1", "u:Hush1@h/db", "mysql;//u:Hush1"] {
            for before in [&[][..], &["run"], &["run", "--writers"], &["run", "--overlap"], &["status", "--format"]] {
                let arguments = [before, &[address]].concat();
                assert!(!text(&arguments).contains("Hush1"), "{arguments:?}: {}", text(&arguments));
            }
        }
        for arguments in [["run", "--password=Hush1"], ["run", "-pHush1"]] {
            assert!(!text(&arguments).contains("Hush1"), "{arguments:?}: {}", text(&arguments));
        }
    }

    #[test]
    fn other_mistakes_are_named() {
        assert!(text(&["rum"]).contains("'rum'") && text(&["rum"]).contains("'run'"));
        assert!(text(&["run", "--writers", "x"]).contains("'x'"));
    }
}
