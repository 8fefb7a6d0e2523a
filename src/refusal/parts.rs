//! What refusals are made of: details in words of our own, which every language words for itself.

use std::fmt;

use super::Refusal;
use crate::invoice::SourceTime;

/// What went wrong, so that a language can word what it has words for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    Refusal(Refusal),
    /// A file could not be put where it belongs.
    NotInPlace {
        path: String,
        detail: String,
    },
    /// A file whose invoice left it could not be removed.
    NotRemoved {
        path: String,
        detail: String,
    },
    /// A file could not be looked at.
    NotSeen {
        path: String,
        detail: String,
    },
    /// `--strict` lets no tenant pass that has any.
    Rejects {
        invoices: u64,
    },
    /// The words of a server or of the operating system.
    Other(String),
}

impl From<&anyhow::Error> for Trouble {
    fn from(error: &anyhow::Error) -> Self {
        match error.downcast_ref::<Refusal>() {
            // What was said around it would be lost.
            Some(refusal) if error.chain().count() == 1 => Self::Refusal(refusal.clone()),
            _ => Self::Other(format!("{error:#}")),
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refusal(refusal) => refusal.fmt(f),
            Self::NotInPlace { path, detail } => write!(f, "cannot put {path} in place: {detail}"),
            Self::NotRemoved { path, detail } => {
                write!(
                    f,
                    "cannot remove {path}: {detail}; verify --against-source --prune removes it once that is possible"
                )
            }
            Self::NotSeen { path, detail } => write!(f, "cannot look at {path}: {detail}"),
            Self::Rejects { invoices } => write!(
                f,
                "{invoices} of its invoices cannot be exported, and --strict holds its watermark until they can; see status --rejects"
            ),
            Self::Other(text) => f.write_str(text),
        }
    }
}

/// Wrong usage of flags and variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misuse {
    WindowReversed {
        since: SourceTime,
        until: SourceTime,
    },
    WindowWithMode,
    Variable {
        name: &'static str,
        value: String,
        allowed: [&'static str; 2],
    },
    NotATime {
        /// The flag or the argument.
        given_as: &'static str,
        text: String,
    },
    NoSource,
    Address(AddressFault),
    PasswordOnCommandLine,
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WindowReversed { since, until } => write!(f, "--since {since} is not before --until {until}"),
            Self::WindowWithMode => f.write_str("--since and --until export a window again and have no --mode"),
            Self::Variable { name, value, allowed: [one, other] } => {
                write!(f, "{name} is {value:?}; it can be {one} or {other}")
            }
            Self::NotATime { given_as, text } => {
                write!(f, "{given_as} {text:?} is no time; write \"2025-11-28 10:00:00\" or \"2025-11-28\"")
            }
            Self::NoSource => f.write_str(
                "no source given; name it with --source or INVOICE_EXPORT_SOURCE, for example mysql://user@host:3306/database",
            ),
            Self::Address(fault) => fault.fmt(f),
            Self::PasswordOnCommandLine => f.write_str(
                "a password on the command line can be read by every user of this machine; use --password-file, --defaults-file or MYSQL_PWD",
            ),
        }
    }
}

/// Why a text is not the address of a source. Nothing of the text is repeated, since any of it may be a
/// password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressFault {
    /// It has none of the known forms.
    Form,
    /// A tab, a line break or the like.
    Control,
    /// A sign of the address's own in a user name, password or path.
    NotEncoded,
    /// The same in the path of a file.
    FileNotEncoded,
    NotUtf8,
    /// A sign in the user name with which a password could begin.
    User,
    Host,
    Port,
    NoDatabase,
    /// A sign in the database's name with which a password could begin.
    Database,
    /// Something else than `socket=` with a path.
    Query,
}

impl fmt::Display for AddressFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => {
                "the source is not understood, and not repeated here, since it may hold a password; write mysql://user@host:3306/database, the same with ?socket=/path, or sqlite:path"
            }
            Self::Control => {
                "the source has a tab, a line break or another control character in it; write it in one line, and in a password %09 for a tab and %0A for a line break"
            }
            Self::NotEncoded => {
                "the source has a # or @ where none belongs; in a user name, password or path, write %23 for #, %40 for @, %2F for / and %3F for ?"
            }
            Self::FileNotEncoded => "in the path of an sqlite: source, write %3F for ? and %23 for #",
            Self::NotUtf8 => "a part of the source's URL is not UTF-8; write each byte of a UTF-8 character as %XX",
            Self::User => {
                "the user name in the source has a sign or space in it that is not understood there; write mysql://user@host:3306/database, a space as %20 and @ as %40, and name a user with other signs in an option file (--defaults-file)"
            }
            Self::Host => {
                "the host in the source is neither a name nor an address; write mysql://user@host:3306/database, and an IPv6 address as [::1]"
            }
            Self::Port => {
                "the port in the source is no number up to 65535; write mysql://user@host:3306/database, with @ before the host"
            }
            Self::NoDatabase => "the source's URL names no database; write mysql://user@host:3306/database",
            Self::Database => {
                "the database in the source has a sign in its name that is not understood there; write mysql://user@host:3306/database"
            }
            Self::Query => {
                "after the ? in the source only socket=/path is known; user and password stand before the host, or in an option file (--defaults-file)"
            }
        })
    }
}

/// Why an option file is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionFileTrouble {
    WritableByAll,
    /// It names other files.
    Include {
        line: u32,
    },
    /// An option before any `[group]`.
    NoGroup {
        line: u32,
    },
    /// A `[group` without its end.
    OpenGroup {
        line: u32,
    },
    NoValue {
        line: u32,
        option: &'static str,
    },
    NotUtf8 {
        line: u32,
        option: &'static str,
    },
}

/// What follows the name of the file.
impl fmt::Display for OptionFileTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WritableByAll => {
                f.write_str(" can be changed by every user of this machine; protect it with chmod o-w")
            }
            Self::Include { line } => write!(
                f,
                ", line {line}: other files are not read from here; name the file that holds the password itself"
            ),
            Self::NoGroup { line } => write!(f, ", line {line}: an option before any group; write [client] above it"),
            Self::OpenGroup { line } => write!(f, ", line {line}: a group without its closing ]; write it as [client]"),
            Self::NoValue { line, option } => {
                write!(f, ", line {line}: {option} has no value; write it as {option}=...")
            }
            Self::NotUtf8 { line, option } => {
                write!(f, ", line {line}: the value of {option} is not UTF-8; save the file as UTF-8")
            }
        }
    }
}

/// Who holds the lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The mode of a run, the name of another command.
    pub purpose: String,
    pub pid: u64,
    pub host: String,
    pub since: String,
}

/// A holder that has just taken the lock may not have left its name yet.
pub fn holder_text(holder: Option<&Holder>) -> String {
    let Some(Holder { purpose, pid, host, since }) = holder else { return "it has not said its name".to_owned() };
    let run = if matches!(purpose.as_str(), "full" | "incremental" | "backfill") { " run" } else { "" };
    format!("{purpose}{run}, pid {pid} on {host}, since {since}")
}

/// What is wrong with a file that should be a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    TooShort {
        bytes: u64,
    },
    NotSqlite,
    OtherProgram,
    /// The words of SQLite or of the operating system.
    Other(String),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort { bytes } => write!(f, "it has only {bytes} bytes"),
            Self::NotSqlite => f.write_str("it is not an SQLite file"),
            Self::OtherProgram => f.write_str("it is an SQLite file of another program"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

/// Why a file or folder of ours is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distrust {
    /// A symbolic link.
    Link,
    NotAFile,
    /// Hard links, in a folder where another user can make them.
    OtherNames,
    /// Something else has its name since the command began.
    Replaced,
    /// The folder is on another file system than the output.
    MountPoint,
}

/// What follows the path.
impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Link => {
                " is a symbolic link, and none is followed there; remove it, or put in its place what it leads to; to keep the state in another folder, use --state-dir"
            }
            Self::NotAFile => " is no ordinary file; remove it",
            Self::OtherNames => {
                " has more than one name (hard links), and another user can make names in its folder; put a copy of it in its place"
            }
            Self::MountPoint => {
                " is a mount point, and files cannot be moved from it into the output; unmount it; to keep the state on another file system, use --state-dir"
            }
            Self::Replaced => {
                " was moved or replaced while this command was at work, so nothing more is written; put it back and run again; keep the state with --state-dir in a folder that no other user can change"
            }
        })
    }
}

/// Why a file is not the script's state file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LegacyFault {
    WrongLines {
        lines: usize,
        /// The numbers of the first.
        numbers: String,
    },
    NoTenant,
}

impl fmt::Display for LegacyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongLines { lines: 1, numbers } => write!(f, "1 wrong line ({numbers})"),
            Self::WrongLines { lines, numbers } => write!(f, "{lines} wrong lines ({numbers})"),
            Self::NoTenant => f.write_str("it names no tenant"),
        }
    }
}

/// What keeps us out of the source, as far as the remedy differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// Nobody answers.
    Unreachable,
    /// User or password.
    Login,
    /// The same where the password was encrypted for the key that the operator named.
    LoginWithKey,
    /// The server asks for the password on a connection that is not encrypted.
    PasswordInTheClear,
    /// The file of the server's key; the detail begins with the file.
    ServerKeyUnusable,
    /// A way to log in that we do not know; the detail is its name.
    LoginUnknown,
    Database,
    /// Too many connections.
    Full,
    NoTls,
    Certificate,
    /// The trusted certificates cannot be read; the detail begins with the file.
    TrustedUnreadable,
    Other,
}

impl Obstacle {
    pub(super) fn explain(self, detail: &str) -> String {
        let user = "check the user in --source and the password (--password-file, --defaults-file or MYSQL_PWD)";
        match self {
            Self::Unreachable => {
                format!("{detail}; check the host and the port in --source, and that the server is running")
            }
            Self::Login => format!("{detail}; {user}"),
            Self::LoginWithKey => format!(
                "{detail}; {user}, and that the file of --server-public-key holds the key of this very server (public_key.pem in its data folder)"
            ),
            Self::PasswordInTheClear => {
                "the server asks for the password itself (as MySQL does after a restart, and where the password is wrong), and on an unencrypted connection it is not sent; encrypt the connection with --ssl-mode VERIFY_CA and --ssl-ca, or at least with --ssl-mode REQUIRED, connect by the server's socket (?socket=/path in --source), or copy public_key.pem from the server's data folder and name it with --server-public-key".to_owned()
            }
            Self::ServerKeyUnusable => {
                format!("cannot use the server's public key {detail}; it must be an RSA public key in PEM that is long enough for the password, as public_key.pem in the server's data folder is; name it with --server-public-key")
            }
            Self::LoginUnknown => format!(
                "the server asks for a login by {detail}, which this program does not know (MySQL does so too where there is no such user); {user}"
            ),
            Self::Database => format!("{detail}; check the database in --source, and that this user may use it"),
            Self::Full => format!("{detail}; close other connections, or raise the limit (max_connections, or max_user_connections of this user)"),
            Self::NoTls => {
                "the server offers no TLS; let its administrator turn it on, or accept a connection in the clear with --ssl-mode DISABLED".to_owned()
            }
            Self::Certificate => format!(
                "the server's certificate is not accepted ({detail}); name its CA with --ssl-ca, or encrypt without checking who answers with --ssl-mode REQUIRED"
            ),
            Self::TrustedUnreadable => {
                format!("cannot read the trusted certificates in {detail}; name a file of certificates with --ssl-ca")
            }
            Self::Other => detail.to_owned(),
        }
    }
}
