//! MySQL's option files, of which user, password and the server's key are taken. They are read as MySQL's own programs
//! read them, quotes, escapes and comments included.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::fs::input::read_text;
use crate::refusal::{OptionFileTrouble, Refusal, cannot_be_read};

/// The groups of such a file that are meant for this program. A later option wins over an earlier one.
const GROUPS: [&[u8]; 2] = [b"client", b"invoice-export"];

/// The account in an option file, as far as the file names it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Login {
    pub user: Option<String>,
    pub password: Option<String>,
    /// The file of the server's RSA key.
    pub server_public_key: Option<String>,
}

impl Login {
    /// # Errors
    /// Refuses a file that cannot be read, one that every user may change, and one that holds a line that MySQL would not read.
    pub(super) fn read(file: &Path) -> anyhow::Result<Self> {
        let cannot = || text!("cannot read the option file {}", "无法读取选项文件 {}", file.display());
        let refused = |trouble| Refusal::OptionFile { file: file.to_path_buf(), trouble };
        let metadata = fs::metadata(file).map_err(|error| Refusal::usage_because(cannot(), cannot_be_read(error)))?;
        // Any user could have put another server's password, or none, in there.
        if metadata.is_file() && metadata.mode() & 0o002 != 0 {
            return Err(refused(OptionFileTrouble::WritableByAll).into());
        }
        let text = read_text(file)
            .map_err(|error| Refusal::usage_because(cannot(), error))?
            .map_err(|mark| refused(OptionFileTrouble::Marked(mark)))?;
        Ok(parse(&text).map_err(refused)?)
    }
}

/// The options of the groups for this program.
fn parse(text: &[u8]) -> Result<Login, OptionFileTrouble> {
    let mut login = Login::default();
    let mut group = None;
    for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        let line = trimmed(line);
        match line.first() {
            None | Some(b'#' | b';') => {}
            Some(b'!') => return Err(OptionFileTrouble::Include { line: number }),
            Some(b'[') => {
                let end =
                    line.iter().position(|byte| *byte == b']').ok_or(OptionFileTrouble::OpenGroup { line: number })?;
                group = Some(trimmed_end(&line[1..end]));
            }
            Some(_) => {
                let group = group.ok_or(OptionFileTrouble::NoGroup { line: number })?;
                if GROUPS.iter().any(|ours| ours.eq_ignore_ascii_case(group)) {
                    login.take(without_comment(line), number)?;
                }
            }
        }
    }
    Ok(login)
}

impl Login {
    /// Keeps the value of an option that is of use here.
    fn take(&mut self, option: &[u8], line: u32) -> Result<(), OptionFileTrouble> {
        let equals = option.iter().position(|byte| *byte == b'=');
        let name = trimmed_end(&option[..equals.unwrap_or(option.len())]);
        let name: Vec<u8> = name.iter().map(|byte| if *byte == b'_' { b'-' } else { *byte }).collect();
        let (name, target) = match name.strip_prefix(b"loose-").unwrap_or(&name) {
            b"user" => ("user", &mut self.user),
            b"password" => ("password", &mut self.password),
            b"server-public-key-path" => ("server-public-key-path", &mut self.server_public_key),
            _ => return Ok(()),
        };
        let value = equals.map(|equals| unquoted(trimmed(&option[equals + 1..])));
        let value = value.ok_or(OptionFileTrouble::NoValue { line, option: name })?;
        *target =
            Some(String::from_utf8(unescaped(value)).map_err(|_| OptionFileTrouble::NotUtf8 { line, option: name })?);
        Ok(())
    }
}

fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == b'\x0b'
}

fn trimmed(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|byte| !is_space(*byte)).unwrap_or(text.len());
    trimmed_end(&text[start..])
}

fn trimmed_end(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|byte| !is_space(*byte)).map_or(0, |last| last + 1);
    &text[..end]
}

/// A `#` outside of quotes starts a comment anywhere in a line.
fn without_comment(line: &[u8]) -> &[u8] {
    let mut quote = None;
    let mut escaped = false;
    for (at, byte) in line.iter().copied().enumerate() {
        match (byte, quote) {
            (b'\'' | b'"', None) => quote = Some(byte),
            (_, Some(open)) if byte == open && !escaped => quote = None,
            (b'#', None) => return &line[..at],
            _ => {}
        }
        escaped = quote.is_some() && byte == b'\\' && !escaped;
    }
    line
}

/// Without the quotes around it.
fn unquoted(value: &[u8]) -> &[u8] {
    match value {
        [b'\'', inner @ .., b'\''] | [b'"', inner @ .., b'"'] => inner,
        _ => value,
    }
}

/// Replaces escapes. Any other backslash stays, so that a path of Windows survives.
fn unescaped(value: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(value.len());
    let mut rest = value;
    while let [first, after @ ..] = rest {
        let escape = after.first().filter(|_| *first == b'\\').and_then(|letter| match letter {
            b'n' => Some(b'\n'),
            b't' => Some(b'\t'),
            b'r' => Some(b'\r'),
            b'b' => Some(b'\x08'),
            b's' => Some(b' '),
            b'"' | b'\'' | b'\\' => Some(*letter),
            _ => None,
        });
        plain.push(escape.unwrap_or(*first));
        rest = if escape.is_some() { &after[1..] } else { after };
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(text: &str) -> Option<String> {
        parse(text.as_bytes()).unwrap().password
    }

    #[test]
    fn only_the_groups_for_us_count_and_what_comes_later_wins() {
        let text = "# ours\n[mysqld]\nuser=mysql\npassword=x\n[client ] \r\n  user = reader \n password=a\n\n\
                    ; more\n[invoice-export]\nloose_password = b\n[mysql]\npassword=c\nno-auto-rehash\n";
        let login = Login { user: Some("reader".into()), password: Some("b".into()), server_public_key: None };
        assert_eq!(parse(text.as_bytes()), Ok(login));
        assert_eq!(parse(b""), Ok(Login::default()));
        assert_eq!(password("[client]\npassword=\n").as_deref(), Some(""));
        let key = parse(b"[client]\nserver_public_key_path = /srv/key.pem # ours\n").unwrap().server_public_key;
        assert_eq!(key.as_deref(), Some("/srv/key.pem"));
    }

    #[test]
    fn escapes_are_read_and_other_backslashes_kept() {
        assert_eq!(
            password("[client]\npassword=a\\nb\\tc\\rd\\be\\sf\\\\g\\'h\\q\\").as_deref(),
            Some("a\nb\tc\rd\u{8}e f\\g'h\\q\\")
        );
    }

    #[test]
    fn what_cannot_be_read_as_it_is_meant_is_refused_with_its_line() {
        let trouble = |text: &str| parse(text.as_bytes()).unwrap_err();
        assert_eq!(trouble("\nuser=a\n[client]\n"), OptionFileTrouble::NoGroup { line: 2 });
        assert_eq!(trouble("[client\nuser=a"), OptionFileTrouble::OpenGroup { line: 1 });
        assert_eq!(trouble("[client]\n !include more.cnf"), OptionFileTrouble::Include { line: 2 });
        assert_eq!(trouble("[client]\npassword # secret"), OptionFileTrouble::NoValue { line: 2, option: "password" });
        let latin1 = parse(b"[client]\n# caf\xe9\npassword=caf\xe9").unwrap_err();
        assert_eq!(latin1, OptionFileTrouble::NotUtf8 { line: 3, option: "password" });
    }
}
