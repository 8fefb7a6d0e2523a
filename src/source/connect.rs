//! Owns the making of connections to MySQL and MariaDB: address, login, encryption, and the translation of the driver's
//! errors.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::anyhow;
use mysql::error::tls::TlsError;
use mysql::{Conn, DriverError, OptsBuilder, SslOpts};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::error_codes::{ErrorClass, ServerError};
use super::{Access, ServerAddress, SourceError, Tls, TlsMode, server_key};
use crate::lang::{Message, Text};
use crate::refusal::{ConnectErrorKind, KeyUse, Refusal, TextMark};

/// Errors that pass while a server starts, stops or cannot be reached.
const PASSING: [ErrorKind; 14] = [
    ErrorKind::ConnectionRefused,
    ErrorKind::ConnectionReset,
    ErrorKind::ConnectionAborted,
    ErrorKind::BrokenPipe,
    ErrorKind::NotConnected,
    ErrorKind::UnexpectedEof,
    ErrorKind::TimedOut,
    ErrorKind::WouldBlock,
    ErrorKind::HostUnreachable,
    ErrorKind::NetworkUnreachable,
    ErrorKind::NetworkDown,
    ErrorKind::AddrNotAvailable,
    ErrorKind::Interrupted,
    // A server that stops takes its socket away.
    ErrorKind::NotFound,
];

/// The driver's words for a connection that ends within a packet of the handshake.
const CUT_SHORT: &str = "bytes remaining on stream";

/// The words of the C libraries (glibc, musl) for a name server that did not answer. They use other words for a name
/// that does not exist. The standard library passes on nothing else.
const NO_ANSWER: [&str; 2] = ["Temporary failure in name resolution", "Try again"];

/// The name of a file that cannot exist, so that reading it fails before anything is sent. The driver reads the
/// server's key when the server has asked for the password in the clear. Without a name the driver would ask the
/// server for a key, which an impostor could supply.
const NO_KEY: &str = "no key\0";

impl ServerAddress {
    /// The driver's options, without encryption.
    fn options(&self, access: &Access) -> OptsBuilder {
        OptsBuilder::new()
            .user(Some(self.user.as_str()))
            .pass(access.password.as_deref())
            .db_name(Some(self.database.as_str()))
            // Otherwise the driver would leave a tunnel to 127.0.0.1 for the socket of a local server.
            .prefer_socket(false)
            .socket(self.socket.as_deref())
            .tcp_connect_timeout(Some(Duration::from_secs(10)))
            // The operating system refuses a timeout of zero.
            .read_timeout(Some(access.read_timeout.max(Duration::from_millis(1))))
            .write_timeout(Some(Duration::from_secs(60)))
            .tcp_keepalive_time_ms(Some(30_000))
            .tcp_keepalive_probe_interval_secs(Some(10))
            .tcp_keepalive_probe_count(Some(6))
            .max_allowed_packet(Some(1 << 30))
            .connect_attrs(Some([("program_name", concat!("invoice-export ", env!("CARGO_PKG_VERSION")))].into()))
    }

    /// Connects with the encryption that the operator asked for. The password is sent by TLS or a socket only, or
    /// encrypted with the server's key if the operator named its file.
    pub(super) fn connect(&self, access: &Access) -> Result<Conn, SourceError> {
        let options = self.options(access);
        if self.socket.is_some() {
            return Conn::new(options).map_err(|error| self.clear_connect_error(error, KeyUse::None));
        }
        let tls = &access.tls;
        let mode = tls.mode.unwrap_or(if self.is_local() { TlsMode::Disabled } else { TlsMode::VerifyIdentity });
        let key = self.server_key(access, mode)?;
        let unencrypted = options.clone().server_key_path(Some(key.clone()));
        let in_the_clear = || self.connect_to_each_address(&unencrypted, false);
        let key_use = if key.as_os_str() == NO_KEY { KeyUse::None } else { KeyUse::Named };
        let clear_error = |error| self.clear_connect_error(error, key_use);
        match mode {
            TlsMode::Disabled => match in_the_clear() {
                // The operator did not choose a mode. A login that the server has cached needs no TLS.
                Err(error) if tls.mode.is_none() && may_require_tls(&error) => {
                    let mode = if tls.ca.is_some() { TlsMode::VerifyCa } else { TlsMode::Required };
                    match self.connect_by_tls(options, mode, tls)? {
                        Err(by_tls) if is_no_tls(&by_tls) || is_login(&error) && !is_answer(&by_tls) => {
                            Err(clear_error(error))
                        }
                        connected => connected.map_err(|error| self.any_connect_error(error)),
                    }
                }
                connected => connected.map_err(clear_error),
            },
            TlsMode::Preferred => match self.connect_by_tls(options, mode, tls)? {
                Err(error) if is_no_tls(&error) => in_the_clear().map_err(clear_error),
                connected => connected.map_err(|error| self.any_connect_error(error)),
            },
            TlsMode::Required | TlsMode::VerifyCa | TlsMode::VerifyIdentity => {
                self.connect_by_tls(options, mode, tls)?.map_err(|error| self.any_connect_error(error))
            }
        }
    }

    /// The outer error is a file of certificates that cannot be read.
    fn connect_by_tls(
        &self,
        options: OptsBuilder,
        mode: TlsMode,
        tls: &Tls,
    ) -> Result<mysql::Result<Conn>, SourceError> {
        let trusted = trusted_file(mode, tls.ca.as_deref());
        trusted.as_deref().map_or(Ok(()), |file| self.refuse_mark(file))?;
        let name = trusted.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
        let refused = |detail: Text| {
            let detail = text!("{name}: {detail}", "{name}: {detail}"; detail);
            SourceError::Final(self.refusal(ConnectErrorKind::TrustedUnreadable, detail))
        };
        trusted.as_deref().map_or(Ok(()), check_trusted).map_err(refused)?;
        let ssl = ssl_options(mode, trusted);
        // A certificate names the host, so the driver must get the host's name.
        match self.connect_to_each_address(&options.ssl_opts(ssl), mode == TlsMode::VerifyIdentity) {
            // An error in the handshake comes as one of the connection.
            Err(mysql::Error::TlsError(TlsError::Tls(_))) if !name.is_empty() => {
                Err(refused(text!("it holds a certificate that cannot be read", "其中有无法读取的证书")))
            }
            result => Ok(result),
        }
    }

    /// Refuses a file in which the driver would pass over a certificate, or see no key, for the mark before it.
    fn refuse_mark(&self, file: &Path) -> Result<(), SourceError> {
        // What cannot be read, or only once, is refused with words of its own.
        let is_file = std::fs::metadata(file).is_ok_and(|data| data.is_file());
        let content = if is_file { std::fs::read(file).unwrap_or_default() } else { Vec::new() };
        let is_inside = content.windows(MARKED_PEM.len()).any(|bytes| bytes == MARKED_PEM);
        let mark = TextMark::of(&content).or(is_inside.then_some(TextMark::Utf8));
        let refused = |mark| self.refusal(ConnectErrorKind::Marked(mark), Text::same(file.display().to_string()));
        mark.map_or(Ok(()), |mark| Err(SourceError::Final(refused(mark))))
    }

    /// The file of the key with which a password may be encrypted.
    fn server_key(&self, access: &Access, mode: TlsMode) -> Result<PathBuf, SourceError> {
        match &access.tls.server_key {
            Some(file) if matches!(mode, TlsMode::Disabled | TlsMode::Preferred) => {
                self.refuse_mark(file)?;
                server_key::check(file, access.password.as_deref().unwrap_or_default()).map_err(|detail| {
                    SourceError::Final(self.refusal(ConnectErrorKind::ServerKeyUnusable, Text::same(detail)))
                })?;
                Ok(file.clone())
            }
            _ => Ok(NO_KEY.into()),
        }
    }

    /// The error of a failed connection by TLS.
    fn any_connect_error(&self, error: mysql::Error) -> SourceError {
        self.connect_error(connect_error_kind(&error), error)
    }

    /// The error of a failed connection without TLS. A server refuses an account that requires TLS with the words for
    /// a wrong password.
    fn clear_connect_error(&self, error: mysql::Error, by_key: KeyUse) -> SourceError {
        match connect_error_kind(&error) {
            ConnectErrorKind::Login => self.connect_error(ConnectErrorKind::LoginInClear(by_key), error),
            obstacle => self.connect_error(obstacle, error),
        }
    }

    /// The error of a failed connection. [`SourceError::Connection`] if another attempt may succeed: TLS and logins
    /// fail again.
    fn connect_error(&self, obstacle: ConnectErrorKind, error: mysql::Error) -> SourceError {
        let passes = passes(&error);
        let detail = match error {
            mysql::Error::DriverError(DriverError::UnknownAuthPlugin(login)) => Text::same(login),
            mysql::Error::DriverError(DriverError::CouldNotConnect(Some((address, why, _)))) => {
                Text::same(format!("{address}: {why}"))
            }
            error => Message::from(&anyhow::Error::from(source_error(error))).what,
        };
        let refusal = self.refusal(obstacle, detail);
        if passes { SourceError::Connection(refusal) } else { SourceError::Final(refusal) }
    }

    /// Names the source that was not reached.
    fn refusal(&self, obstacle: ConnectErrorKind, detail: Text) -> anyhow::Error {
        Refusal::CannotConnect { source: self.name(), obstacle, detail }.into()
    }

    /// Tries each address of the host. The driver stops at the first one that refuses.
    fn connect_to_each_address(&self, options: &OptsBuilder, by_name: bool) -> mysql::Result<Conn> {
        let addresses = (self.host.as_str(), self.port).to_socket_addrs().map_err(name_error)?;
        if by_name {
            return self.dial_by_name(options, &addresses.collect::<Vec<_>>());
        }
        let mut failed = mysql::Error::IoError(ErrorKind::AddrNotAvailable.into());
        for address in addresses {
            let options = options.clone().ip_or_hostname(Some(address.ip().to_string())).tcp_port(address.port());
            match Conn::new(options) {
                // The answer of a server decides.
                Err(error) if asks_for_password(&error) => return Err(error),
                Err(error) if is_unanswered(&error) => failed = error,
                result => return result,
            }
        }
        Err(failed)
    }

    /// The crate checks a certificate against the name that it looks up itself, and gives up at the first address that
    /// refuses. Only if it is to call from an address of a given family does it try all addresses of that family.
    fn dial_by_name(&self, options: &OptsBuilder, addresses: &[SocketAddr]) -> mysql::Result<Conn> {
        let options = options.clone().ip_or_hostname(Some(self.host.as_str())).tcp_port(self.port);
        let first = Conn::new(options.clone());
        if addresses.len() < 2 || !first.as_ref().is_err_and(is_unanswered) {
            return first;
        }
        let ours: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        let has = |ours: &IpAddr| addresses.iter().any(|address| address.is_ipv4() == ours.is_ipv4());
        for ours in ours.into_iter().filter(has) {
            let answer = Conn::new(options.clone().bind_address(Some(SocketAddr::new(ours, 0))));
            if !answer.as_ref().is_err_and(is_unanswered) {
                return answer;
            }
        }
        first
    }
}

/// No server answered at an address.
fn is_unanswered(error: &mysql::Error) -> bool {
    matches!(
        error,
        mysql::Error::IoError(_)
            | mysql::Error::DriverError(DriverError::CouldNotConnect(_) | DriverError::ConnectTimeout)
    )
}

/// The files in which Debian, Red Hat and Alpine keep the certificates that the system trusts.
const SYSTEM_CERTIFICATES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// How a certificate begins after the mark of an editor, also where files were put together.
const MARKED_PEM: &[u8] = b"\xef\xbb\xbf-----BEGIN";

/// The first byte of a certificate in DER.
const DER_SEQUENCE: u8 = 0x30;

/// The file of trusted certificates: the one that the operator named, or the system's. None where the mode trusts any.
fn trusted_file(mode: TlsMode, ca: Option<&Path>) -> Option<PathBuf> {
    let system = || SYSTEM_CERTIFICATES.iter().map(PathBuf::from).find(|file| file.exists());
    match mode {
        TlsMode::Disabled | TlsMode::Preferred | TlsMode::Required => None,
        TlsMode::VerifyCa | TlsMode::VerifyIdentity => ca.map(Path::to_path_buf).or_else(system),
    }
}

/// Checks that the driver will find certificates in the file. Otherwise it blames the server's certificate, or the host
/// and the port. An error is in the words of the operating system, or says what is wrong.
fn check_trusted(file: &Path) -> Result<(), Text> {
    let system = |error: std::io::Error| Text::same(error.to_string());
    // The driver reads the file again for each connection.
    if std::fs::metadata(file).map_err(system)?.file_type().is_fifo() {
        return Err(text!(
            "it is a pipe, and each connection reads it again",
            "这是管道，而每次连接都要重新读取该文件"
        ));
    }
    let content = std::fs::read(file).map_err(system)?;
    let mut certificates = 0;
    for certificate in CertificateDer::pem_slice_iter(&content) {
        certificates += 1;
        certificate
            .map_err(|error| text!("certificate {certificates}: {error}", "第 {certificates} 个证书: {error}"))?;
    }
    if certificates == 0 && content.first() != Some(&DER_SEQUENCE) {
        return Err(text!("it holds no certificate", "其中没有证书"));
    }
    Ok(())
}

/// The options of TLS.
fn ssl_options(mode: TlsMode, trusted: Option<PathBuf>) -> Option<SslOpts> {
    let verified = || SslOpts::default().with_root_cert_path(trusted);
    match mode {
        TlsMode::Disabled => None,
        TlsMode::Preferred | TlsMode::Required => Some(SslOpts::default().with_danger_accept_invalid_certs(true)),
        TlsMode::VerifyCa => Some(verified().with_danger_skip_domain_validation(true)),
        TlsMode::VerifyIdentity => Some(verified()),
    }
}

/// The server has asked for the password on an unencrypted connection, and no key is given.
fn asks_for_password(error: &mysql::Error) -> bool {
    matches!(error, mysql::Error::IoError(error) if error.kind() == ErrorKind::InvalidInput)
}

/// The server did not let this user in.
fn is_login(error: &mysql::Error) -> bool {
    matches!(error, mysql::Error::MySqlError(error) if ErrorClass::of(error.code) == ErrorClass::Login)
}

/// Whether the same login may succeed by TLS.
fn may_require_tls(error: &mysql::Error) -> bool {
    let is_refused = |code| ErrorClass::of(code) == ErrorClass::TlsRequired;
    asks_for_password(error)
        || is_login(error)
        || matches!(error, mysql::Error::MySqlError(error) if is_refused(error.code))
}

/// The server answered with an error of its own.
fn is_answer(error: &mysql::Error) -> bool {
    matches!(error, mysql::Error::MySqlError(_))
}

/// The server does not support TLS.
fn is_no_tls(error: &mysql::Error) -> bool {
    matches!(error, mysql::Error::DriverError(DriverError::TlsNotSupported))
}

/// Gives the error of a name server that did not answer a kind that passes.
fn name_error(error: std::io::Error) -> std::io::Error {
    let text = error.to_string();
    let passes = NO_ANSWER.iter().any(|words| text.contains(words));
    std::io::Error::new(if passes { ErrorKind::TimedOut } else { ErrorKind::Other }, error)
}

/// Translates an error of the driver.
pub(super) fn source_error(error: mysql::Error) -> SourceError {
    match error {
        mysql::Error::MySqlError(error) => match ErrorClass::of(error.code) {
            ErrorClass::Passing | ErrorClass::Full => SourceError::Connection(server_error(&error)),
            ErrorClass::Overtime(setting) => {
                SourceError::Exhausted(Refusal::Overtime { setting, detail: error.to_string() }.into())
            }
            ErrorClass::OutOfMemory => SourceError::Exhausted(server_error(&error)),
            _ => SourceError::Statement(server_error(&error)),
        },
        mysql::Error::IoError(error) => SourceError::Connection(anyhow!("{error}")),
        mysql::Error::CodecError(error) => SourceError::Connection(anyhow!("{error}")),
        mysql::Error::DriverError(error) => SourceError::Connection(anyhow!("{error}")),
        mysql::Error::TlsError(error) => SourceError::Connection(anyhow!("{error}")),
        mysql::Error::UrlError(_) | mysql::Error::FromValueError(_) | mysql::Error::FromRowError(_) => {
            SourceError::Connection(text!("the server's answer cannot be read", "无法读取服务器的应答").into())
        }
    }
}

/// Translates an error that the server answered with.
fn server_error(error: &mysql::MySqlError) -> anyhow::Error {
    ServerError { code: error.code, text: error.to_string() }.into()
}

/// Whether another attempt may succeed without any change.
fn passes(error: &mysql::Error) -> bool {
    let io_passes = |error: &std::io::Error| PASSING.contains(&error.kind()) || error.to_string().contains(CUT_SHORT);
    match error {
        mysql::Error::MySqlError(error) => ErrorClass::of(error.code).passes(),
        mysql::Error::IoError(error) => io_passes(error),
        mysql::Error::CodecError(error) => {
            std::error::Error::source(error).and_then(|cause| cause.downcast_ref()).is_some_and(io_passes)
        }
        mysql::Error::DriverError(DriverError::CouldNotConnect(Some((_, _, kind)))) => PASSING.contains(kind),
        mysql::Error::DriverError(
            DriverError::ConnectTimeout | DriverError::Timeout | DriverError::UnexpectedPacket,
        ) => true,
        _ => false,
    }
}

/// The kind by which an operator is advised.
fn connect_error_kind(error: &mysql::Error) -> ConnectErrorKind {
    use DriverError::{ConnectTimeout, CouldNotConnect, TlsNotSupported, UnknownAuthPlugin};
    match error {
        mysql::Error::MySqlError(error) => match ErrorClass::of(error.code) {
            ErrorClass::Login => ConnectErrorKind::Login,
            ErrorClass::Database => ConnectErrorKind::Database,
            ErrorClass::Full => ConnectErrorKind::Full,
            ErrorClass::TlsRequired => ConnectErrorKind::TlsRequired,
            _ => ConnectErrorKind::Other,
        },
        mysql::Error::DriverError(CouldNotConnect(_) | ConnectTimeout) => ConnectErrorKind::Unreachable,
        mysql::Error::DriverError(UnknownAuthPlugin(_)) => ConnectErrorKind::LoginUnknown,
        mysql::Error::DriverError(TlsNotSupported) => ConnectErrorKind::NoTls,
        error if asks_for_password(error) => ConnectErrorKind::PasswordInTheClear,
        // The driver passes the handshake's error on as text within others.
        mysql::Error::IoError(_) | mysql::Error::CodecError(_) if error.to_string().contains("certificate") => {
            ConnectErrorKind::Certificate
        }
        mysql::Error::IoError(_) | mysql::Error::CodecError(_) => ConnectErrorKind::Unreachable,
        _ => ConnectErrorKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_name_server_that_does_not_answer_may_answer_later() {
        let told = |words: &str| {
            let text = format!("failed to lookup address information: {words}");
            passes(&name_error(std::io::Error::other(text)).into())
        };
        assert!(told("Temporary failure in name resolution") && told("Try again"));
        assert!(!told("Name or service not known") && !told("Name does not resolve"));
        assert!(!told("No address associated with hostname"));
    }
}
