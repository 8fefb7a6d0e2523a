//! Owns the kinds of errors that keep a run out of a server, and the way out of each.

use super::TextMark;
use crate::lang::{Message, Text};

/// Why no connection to the source was made, as far as the remedy differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectErrorKind {
    /// No server answers.
    Unreachable,
    /// User or password, on a connection by TLS.
    Login,
    /// The same on a connection without TLS.
    LoginInClear(KeyUse),
    /// The server takes no connection that is not encrypted.
    TlsRequired,
    /// The server asks for the password on a connection that is not encrypted.
    PasswordInTheClear,
    /// The file of the server's key; the detail begins with the file.
    ServerKeyUnusable,
    /// A way to log in that this program does not know; the detail is its name.
    LoginUnknown,
    Database,
    /// Too many connections.
    Full,
    NoTls,
    Certificate,
    /// The trusted certificates cannot be read; the detail begins with the file.
    TrustedUnreadable,
    /// An editor put a mark before a certificate or key; the detail is the file.
    Marked(TextMark),
    Other,
}

/// Whether a password was encrypted for the key that the operator named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyUse {
    None,
    Named,
}

impl ConnectErrorKind {
    /// The wording, without the name of the source.
    pub(super) fn message(self, detail: &Text) -> Message {
        let said = || detail.clone();
        match self {
            Self::Unreachable => said().with_hint(text!(
                "check the host and the port in --source, and that the server is running",
                "请检查 --source 中的主机和端口，以及数据库服务器是否在运行"
            )),
            Self::Login => said().with_hint(login_by_tls()),
            Self::LoginInClear(key) => said().with_hint(login_in_clear(key)),
            Self::TlsRequired => said().with_hint(text!(
                "encrypt the connection with --ssl-mode VERIFY_CA and --ssl-ca, or at least with --ssl-mode REQUIRED",
                "请用 --ssl-mode VERIFY_CA 和 --ssl-ca 加密连接，至少用 --ssl-mode REQUIRED"
            )),
            Self::PasswordInTheClear => message! {
                "the server asks for the password itself (as MySQL does after a restart, and where the password is wrong), and on an unencrypted connection it is not sent",
                "服务器要求提供密码本身（MySQL 在重启之后、以及密码错误时会这样要求），而密码不会通过未加密的连接发送";
                "encrypt the connection with --ssl-mode VERIFY_CA and --ssl-ca, or at least with --ssl-mode REQUIRED, connect by the server's socket (?socket=/path in --source), or copy public_key.pem from the server's data folder and name it with --server-public-key",
                "请用 --ssl-mode VERIFY_CA 和 --ssl-ca 加密连接，至少用 --ssl-mode REQUIRED；或通过服务器的套接字连接（--source 中的 ?socket=/path）；或从服务器的数据目录复制 public_key.pem，并用 --server-public-key 指定"
            },
            Self::ServerKeyUnusable => message! {
                "cannot use the server's public key {detail}", "服务器公钥无法使用: {detail}";
                "it must be an RSA public key in PEM that is long enough for the password, as public_key.pem in the server's data folder is; name it with --server-public-key",
                "它必须是 PEM 格式的 RSA 公钥，且长度足以加密该密码，如服务器数据目录中的 public_key.pem；请用 --server-public-key 指定"; detail
            },
            Self::LoginUnknown => text!(
                "the server asks for a login by {detail}, which this program does not know (MySQL does so too where there is no such user)",
                "服务器要求以 {detail} 方式登录，本程序不支持（用户不存在时 MySQL 也会如此要求）"; detail
            )
            .with_hint(user()),
            Self::Database => said().with_hint(text!(
                "check the database in --source, and that this user may use it",
                "请检查 --source 中的数据库名，以及该用户是否有权使用它"
            )),
            Self::Full => said().with_hint(text!(
                "close other connections, or raise the limit (max_connections, or max_user_connections of this user)",
                "请关闭其他连接，或调大上限（max_connections，或该用户的 max_user_connections）"
            )),
            Self::NoTls => message! {
                "the server offers no TLS", "服务器不支持 TLS";
                "let its administrator turn it on, or accept a connection in the clear with --ssl-mode DISABLED",
                "请让管理员启用 TLS，或用 --ssl-mode DISABLED 接受不加密的连接"
            },
            Self::Certificate => message! {
                "the server's certificate is not accepted ({detail})", "服务器证书不被接受（{detail}）";
                "name its CA with --ssl-ca, or encrypt without checking who answers with --ssl-mode REQUIRED",
                "请用 --ssl-ca 指定其 CA，或用 --ssl-mode REQUIRED 只加密而不检查对方身份"; detail
            },
            Self::TrustedUnreadable => message! {
                "cannot read the trusted certificates in {detail}", "无法读取受信任的证书 {detail}";
                "name a file of certificates with --ssl-ca", "请用 --ssl-ca 指定证书文件"; detail
            },
            Self::Marked(mark) => {
                let mark = mark.text();
                text!("cannot read {detail}: {mark}", "无法读取 {detail}: {mark}"; detail, mark).with_hint(TextMark::remedy())
            }
            Self::Other => said().into(),
        }
    }
}

/// The account that logs in.
fn user() -> Text {
    text!(
        "check the user in --source and the password (--password-file, --defaults-file or MYSQL_PWD)",
        "请检查 --source 中的用户名和密码（--password-file、--defaults-file 或 MYSQL_PWD）"
    )
}

fn login_by_tls() -> Text {
    let user = user();
    text!(
        "{user}; an account that requires a certificate of its client (REQUIRE X509) cannot be used",
        "{user}；要求客户端证书的账号（REQUIRE X509）无法使用"; user
    )
}

fn login_in_clear(key: KeyUse) -> Text {
    let user = user();
    let user = match key {
        KeyUse::None => user,
        KeyUse::Named => text!(
            "{user}, and that the file of --server-public-key holds the key of this very server (public_key.pem in its data folder)",
            "{user}，并确认 --server-public-key 指定的文件就是这台服务器的公钥（其数据目录中的 public_key.pem）"; user
        ),
    };
    text!(
        "{user}; if the account or the server requires TLS (REQUIRE SSL, require_secure_transport), connect by TCP with --ssl-mode REQUIRED, or better VERIFY_CA and --ssl-ca",
        "{user}；如果账号或服务器要求 TLS（REQUIRE SSL、require_secure_transport），请通过 TCP 连接，并用 --ssl-mode REQUIRED，或更安全的 VERIFY_CA 加 --ssl-ca"; user
    )
}
