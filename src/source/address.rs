//! Owns the URL of a source: `mysql://user@host:3306/database`, the same with `?socket=/path`, or `sqlite:path`.
//!
//! The text may hold a password, and its parts are printed, mailed and recorded. So the text is parsed in full or refused,
//! and a part that is printed holds no sign by which a password could have got into it: `mysql:user:password@host/db` is
//! not the database `user:password@host/db`.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use percent_encoding::percent_decode_str;

use crate::refusal::AddressFault;

/// The address of a source, without its password.
#[derive(Clone, PartialEq, Eq)]
pub enum Address {
    Server(ServerAddress),
    /// The path of an SQLite file.
    File(String),
}

/// Host, port or socket of a server, its database, and the user who logs in.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerAddress {
    pub(super) user: String,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) database: String,
    pub(super) socket: Option<String>,
}

impl Address {
    /// The address in this text, and the password that the text holds.
    ///
    /// # Errors
    /// The text is no address. No error repeats any of the text.
    pub fn parse(text: &str) -> Result<(Self, Option<String>), AddressFault> {
        let text = text.trim();
        if text.contains(char::is_control) {
            return Err(AddressFault::Control);
        }
        let (scheme, rest) = text.split_once(':').ok_or(AddressFault::Form)?;
        if scheme.eq_ignore_ascii_case("sqlite") {
            return file(rest).map(|path| (Self::File(path), None));
        }
        let rest = rest.strip_prefix("//").filter(|_| scheme.eq_ignore_ascii_case("mysql"));
        let (place, password) = place(rest.ok_or(AddressFault::Form)?)?;
        Ok((Self::Server(place), password))
    }

    /// The server and the database, or the file, in a source's name. A file that is not there has the name that it
    /// would have.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Server(place) => place.name(),
            Self::File(given) => format!("sqlite:{}", real_path(Path::new(given)).display()),
        }
    }

    /// Sets the user of an address that names none. A file has no users.
    pub(crate) fn set_missing_user(&mut self, user: String) {
        if let Self::Server(place) = self
            && place.user.is_empty()
        {
            place.user = user;
        }
    }
}

impl FromStr for Address {
    type Err = AddressFault;

    /// Parses the address and drops the password.
    fn from_str(text: &str) -> Result<Self, AddressFault> {
        Self::parse(text).map(|(address, _)| address)
    }
}

impl ServerAddress {
    /// The server and the database in a source's name.
    pub(super) fn name(&self) -> String {
        match &self.socket {
            Some(socket) => format!("mysql://{socket}/{}", self.database),
            None if self.host.contains(':') => format!("mysql://[{}]:{}/{}", self.host, self.port, self.database),
            None => format!("mysql://{}:{}/{}", self.host, self.port, self.database),
        }
    }

    /// Whether the host is this machine.
    pub(super) fn is_local(&self) -> bool {
        self.host == "localhost" || self.host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
    }
}

/// The path without links, as far as its parts are there.
fn real_path(given: &Path) -> PathBuf {
    let in_folder = || {
        let folder = given.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Some(folder.canonicalize().ok()?.join(given.file_name()?))
    };
    given.canonicalize().ok().or_else(in_folder).unwrap_or_else(|| given.to_path_buf())
}

/// Whether the text holds a URL with a password anywhere in it.
pub fn holds_password(text: &str) -> bool {
    text.split("://").skip(1).any(|after| {
        let end = after.find(|c: char| "/?#".contains(c) || c.is_whitespace()).unwrap_or(after.len());
        after[..end].rsplit_once('@').is_some_and(|(login, _)| login.contains(':'))
    })
}

/// Parses the rest after `sqlite:`.
fn file(rest: &str) -> Result<String, AddressFault> {
    let path = match rest.strip_prefix("//") {
        // A file has no host.
        Some(after) if !after.starts_with('/') => return Err(AddressFault::Form),
        Some(after) => after,
        None => rest,
    };
    if path.is_empty() || path.contains("://") {
        return Err(AddressFault::Form);
    }
    if path.contains(['?', '#']) {
        return Err(AddressFault::FileNotEncoded);
    }
    decoded(path)
}

/// Parses the rest after `mysql://`, and the password in it.
fn place(rest: &str) -> Result<(ServerAddress, Option<String>), AddressFault> {
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, after) = rest.split_at(end);
    // The user would become the host, and the password a port or a database.
    if after.contains(['#', '@']) {
        return Err(AddressFault::NotEncoded);
    }
    let (login, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = login.split_once(':').map_or((login, None), |(user, password)| (user, Some(password)));
    if user.contains('@') {
        return Err(AddressFault::NotEncoded);
    }
    let user =
        decoded(user).ok().filter(|name| is_plain(name, "@") && !user.contains(' ')).ok_or(AddressFault::User)?;
    let password = password.map(decoded).transpose()?;
    let (path, query) = after.split_once('?').unwrap_or((after, ""));
    let socket = socket(query)?;
    let (host, port) = host_and_port(host)?;
    let host = match host {
        "" if socket.is_none() => return Err(AddressFault::Form),
        "" => "localhost",
        host => host,
    };
    let database = decoded(path.trim_matches('/'))?;
    if database.is_empty() {
        return Err(AddressFault::NoDatabase);
    }
    if !is_plain(&database, "") {
        return Err(AddressFault::Database);
    }
    Ok((ServerAddress { user, host: host.to_owned(), port, database, socket }, password))
}

/// Parses `host`, `host:port` or `[ipv6]:port`. The default port is 3306.
fn host_and_port(text: &str) -> Result<(&str, u16), AddressFault> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once(']').ok_or(AddressFault::Host)?;
        host.parse::<Ipv6Addr>().map_err(|_| AddressFault::Host)?;
        (host, port)
    } else {
        let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
        if !host.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) {
            return Err(AddressFault::Host);
        }
        (host, port)
    };
    match port.strip_prefix(':').unwrap_or(port) {
        "" => Ok((host, 3306)),
        digits if port.starts_with(':') && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().map(|port| (host, port)).map_err(|_| AddressFault::Port)
        }
        _ => Err(AddressFault::Port),
    }
}

/// The path in `socket=`. A query may hold nothing else.
fn socket(query: &str) -> Result<Option<String>, AddressFault> {
    if query.is_empty() {
        return Ok(None);
    }
    let path = query.strip_prefix("socket=").ok_or(AddressFault::Query)?;
    let path = decoded(path)?;
    if !is_plain(&path, "/@") || path.is_empty() {
        return Err(AddressFault::Query);
    }
    Ok(Some(path))
}

/// Whether a name lacks every sign with which a password begins or ends. Letters, digits, spaces, `_ - . $ + ~` and
/// the allowed signs are plain. Fullwidth signs, which an input method for Chinese makes, count as the ASCII signs
/// that they look like.
fn is_plain(name: &str, allowed: &str) -> bool {
    name.chars().all(|c| {
        let c = match u32::from(c) {
            wide @ 0xff01..=0xff5e => char::from_u32(wide - 0xfee0).unwrap_or(c),
            _ => c,
        };
        !c.is_control() && (!c.is_ascii_punctuation() || "_-.$+~".contains(c) || allowed.contains(c))
    })
}

/// Undoes the percent-encoding of a part.
fn decoded(part: &str) -> Result<String, AddressFault> {
    percent_decode_str(part).decode_utf8().map(Cow::into_owned).map_err(|_| AddressFault::NotUtf8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn server(text: &str) -> (ServerAddress, Option<String>) {
        match Address::parse(text) {
            Ok((Address::Server(place), password)) => (place, password),
            Ok((Address::File(path), _)) => panic!("{text} is the file {path}"),
            Err(fault) => panic!("{text}: {}", fault.message()),
        }
    }

    fn fault(text: &str) -> AddressFault {
        let Err(fault) = Address::parse(text) else { panic!("{text} was understood") };
        fault
    }

    #[test]
    fn an_address_says_where_and_as_whom() {
        let (place, password) = server("mysql://a%20b:p%40w@localhost/shop?socket=/run/my%20sql.sock");
        assert_eq!((place.user.as_str(), place.socket.as_deref()), ("a b", Some("/run/my sql.sock")));
        assert_eq!(password.as_deref(), Some("p@w"));
        let (place, _) = server("mysql://root@[::1]/shop");
        assert_eq!((place.host.as_str(), place.port, place.name().as_str()), ("::1", 3306, "mysql://[::1]:3306/shop"));
        assert_eq!(server("MySQL://db:3307/caf%C3%A9").0.name(), "mysql://db:3307/café");
        assert_eq!(server(" mysql://reader%40azure:a:b@c d@db.example/shop/\n").1.as_deref(), Some("a:b@c d"));
        assert_eq!(server("mysql:///shop?socket=/run/mysqld.sock").0.name(), "mysql:///run/mysqld.sock/shop");
        assert_eq!(server("mysql://:x@h/shop").0.user, "");
    }

    #[test]
    fn a_file_may_be_called_anything() {
        for (text, path) in [
            ("sqlite:a b.db", "a b.db"),
            ("SQLITE:/srv/u:p@h/x.db", "/srv/u:p@h/x.db"),
            ("sqlite:///srv/%23%3F.db", "/srv/#?.db"),
        ] {
            assert!(matches!(Address::parse(text), Ok((Address::File(found), None)) if found == path), "{text}");
        }
        assert_eq!(fault("sqlite:a#b"), AddressFault::FileNotEncoded);
        for text in ["sqlite:", "sqlite://host/x", "sqlite://u:p@h/x", "sqlite:mysql://u:p@h/x"] {
            assert_eq!(fault(text), AddressFault::Form, "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_for_what_is_wrong_with_it() {
        for (text, expected) in [
            ("mysql:u:p@h/db", AddressFault::Form),
            ("mysql:/u:p@h/db", AddressFault::Form),
            ("mysql:///db", AddressFault::Form),
            ("mysql://u:p@/db", AddressFault::Form),
            ("u:p@h/db", AddressFault::Form),
            ("jdbc:mysql://h/db?password=p", AddressFault::Form),
            ("mariadb://u:p@h/db", AddressFault::Form),
            ("mysql://u:p\tq@h/db", AddressFault::Control),
            ("mysql://u:p#q@h/db", AddressFault::NotEncoded),
            ("mysql://u:p/q@h/db", AddressFault::NotEncoded),
            ("mysql://u@p@h/db", AddressFault::NotEncoded),
            ("mysql://u%3Ap@h/db", AddressFault::User),
            ("mysql://u%253Ap@h/db", AddressFault::User),
            ("mysql://u p@h/db", AddressFault::User),
            ("mysql://u：p@h/db", AddressFault::User),
            ("mysql://u:%ff@h/db", AddressFault::NotUtf8),
            ("mysql://u%3Ap%40h/db", AddressFault::Host),
            ("mysql://[u:p]/db", AddressFault::Host),
            ("mysql://u:p/db", AddressFault::Port),
            ("mysql://h:+80/db", AddressFault::Port),
            ("mysql://[::1]p/db", AddressFault::Port),
            ("mysql://h:70000/db", AddressFault::Port),
            ("mysql://h/", AddressFault::NoDatabase),
            ("mysql://h/u:p", AddressFault::Database),
            ("mysql://h/db?user=u", AddressFault::Query),
            ("mysql://h/db?socket=/x&password=p", AddressFault::Query),
            ("mysql://h/db?socket=/x?password=p", AddressFault::Query),
        ] {
            assert_eq!(fault(text), expected, "{text}");
        }
    }

    #[test]
    fn a_password_is_noticed_wherever_a_url_stands() {
        for text in ["mysql://u:p@h/db", "--source=mysql://u:p@h", "from sqlite://x to MYSQL://:p@h", "http://u:p@h q"]
        {
            assert!(holds_password(text), "{text}");
        }
        for text in ["mysql://u@h:3306/db", "http://h:80/a@b", "http://h/u:p@h", "u:p@h", "--until 10:00:00", ""] {
            assert!(!holds_password(text), "{text}");
        }
    }

    /// What is printed of an address, or sent to a server that may repeat it.
    fn shown(address: &Address) -> String {
        match address {
            Address::Server(place) => format!("{} {}", place.name(), place.user),
            Address::File(_) => String::new(),
        }
    }

    proptest! {
        #[test]
        fn no_part_that_is_printed_holds_what_could_be_a_password(
            scheme in "(mysql|MYSQL|mysq1|mariadb|jdbc:mysql|my sql|)[:;：]{0,2}",
            slashes in "/{0,3}",
            user in "[a-z]{0,3}",
            before in "(:|;|：|%3A|%253A|=|\\||,|::|:/|@:| |\t|&password=|\\?password=)",
            after in "(@|@@|%40|＠|/|@h:|;|\n@|#@| @)?",
            host in "(h|127\\.0\\.0\\.1|\\[::1\\]|h:3306|h:)?",
            path in "(/db|/|/db\\?socket=/s|)",
        ) {
            const SECRET: &str = "Hush1";
            let text = format!("{scheme}{slashes}{user}{before}{SECRET}{after}{host}{path}");
            match Address::parse(&text) {
                Ok((address, _)) => prop_assert!(!shown(&address).contains(SECRET), "{text}"),
                Err(fault) => prop_assert!(!fault.message().to_string().contains(SECRET), "{text}"),
            }
        }
    }
}
