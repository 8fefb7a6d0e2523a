//! Private database servers: one per flavor for the whole binary, or one of a test's own that it
//! may kill and restart. Data, socket and port are theirs alone; no installed server is touched.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mysql::{Conn, OptsBuilder};

use super::database::Database;
use super::supervisor::Supervisor;

const READY_WITHIN: Duration = Duration::from_secs(60);
const USUAL_PORT: u16 = 3306;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavor {
    MariaDb,
    MySql,
}

/// What a test may want to be different in a server of its own.
#[derive(Clone, Copy)]
pub(crate) struct Settings {
    /// The time zone of the server's operating system.
    pub(crate) os_zone: &'static str,
    /// Further command line options; the last one wins.
    pub(crate) options: &'static [&'static str],
}

impl Default for Settings {
    fn default() -> Self {
        Self { os_zone: "UTC", options: &[] }
    }
}

/// The server that all tests share. It cannot be killed: that takes a `&mut Server`.
pub(crate) fn server(flavor: Flavor) -> &'static Server {
    static MARIADB: LazyLock<Server> = LazyLock::new(|| Server::fresh(Flavor::MariaDb));
    static MYSQL: LazyLock<Server> = LazyLock::new(|| Server::fresh(Flavor::MySql));
    match flavor {
        Flavor::MariaDb => &MARIADB,
        Flavor::MySql => &MYSQL,
    }
}

/// A running server, gone when this is dropped or our process ends in whatever way.
pub(crate) struct Server {
    flavor: Flavor,
    settings: Settings,
    address: Address,
    supervisor: Supervisor,
    pid: u32,
    /// The process in the network of which it listens, if that is not ours.
    network: Option<u32>,
}

/// How to reach a server; it outlives a kill and a restart.
#[derive(Clone)]
pub(crate) struct Address {
    pub(crate) port: u16,
    pub(crate) socket: PathBuf,
}

impl Server {
    /// A server of the test's own.
    pub(crate) fn fresh(flavor: Flavor) -> Self {
        Self::fresh_with(flavor, Settings::default())
    }

    pub(crate) fn fresh_with(flavor: Flavor, settings: Settings) -> Self {
        Self::listening(flavor, settings, None)
    }

    /// A server that listens at its usual port in the network of this process.
    pub(crate) fn in_network_of(process: u32, flavor: Flavor, settings: Settings) -> Self {
        Self::listening(flavor, settings, Some(process))
    }

    fn listening(flavor: Flavor, settings: Settings, network: Option<u32>) -> Self {
        let port = || if network.is_some() { USUAL_PORT } else { free_port() };
        let mut supervisor = Supervisor::new(settings.os_zone);
        let [from, to] = [flavor.new_data(), &supervisor.dir().join("data")].map(|folder| folder.display().to_string());
        let code = supervisor.run(&["cp".into(), "-a".into(), from, to]);
        assert!(code == 0, "the data folder could not be copied:\n{}", supervisor.log());
        let address = Address { port: port(), socket: supervisor.dir().join("socket") };
        let mut server = Self { flavor, settings, address, supervisor, pid: 0, network };
        // Another process may take the port between our asking for it and the server's binding it.
        let started = (0..3).any(|_| {
            server.started() || {
                server.address.port = port();
                false
            }
        });
        assert!(started, "{flavor:?} did not start:\n{}", server.supervisor.log());
        server
    }

    /// A new empty database with a name of its own.
    pub(crate) fn database(&self) -> Database {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        Database::create(self.address.clone(), format!("invoices_{}", NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    /// A new empty database, where the test needs its name.
    pub(crate) fn database_named(&self, name: &str) -> Database {
        Database::create(self.address.clone(), name.to_owned())
    }

    /// SIGKILL; nothing is flushed or said good-bye to.
    pub(crate) fn kill(&mut self) {
        self.supervisor.kill();
    }

    /// Starts it again with its data, socket and port.
    pub(crate) fn restart(&mut self) {
        self.supervisor.kill();
        assert!(self.started(), "{:?} did not start again:\n{}", self.flavor, self.supervisor.log());
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Where its data lies; removed with it.
    pub(crate) fn dir(&self) -> &Path {
        self.supervisor.dir()
    }

    fn started(&mut self) -> bool {
        let mut command = self.flavor.serve(self.supervisor.dir(), &self.address, self.settings.options);
        if let Some(process) = self.network {
            command.splice(0..0, ["nsenter".to_owned(), format!("--net=/proc/{process}/ns/net")]);
        }
        self.pid = self.supervisor.start(&command);
        let deadline = Instant::now() + READY_WITHIN;
        while Instant::now() < deadline && !has_ended(self.pid) {
            if self.address.connect(None).is_ok() {
                return true;
            }
            thread::sleep(Duration::from_millis(10));
        }
        self.supervisor.kill();
        false
    }
}

impl Address {
    /// A connection of the test's own, as root, without any of the exporter's session settings.
    pub(crate) fn connect(&self, database: Option<&str>) -> mysql::Result<Conn> {
        let options = OptsBuilder::new()
            .user(Some("root"))
            .socket(self.socket.to_str())
            .db_name(database)
            .init(vec!["SET NAMES utf8mb4", "SET lock_wait_timeout = 20"]);
        Conn::new(options)
    }
}

impl Flavor {
    /// The data folder of a new server, made once for all.
    fn new_data(self) -> &'static Path {
        static MARIADB: LazyLock<(Supervisor, PathBuf)> = LazyLock::new(|| Flavor::MariaDb.initialised());
        static MYSQL: LazyLock<(Supervisor, PathBuf)> = LazyLock::new(|| Flavor::MySql.initialised());
        match self {
            Self::MariaDb => &MARIADB.1,
            Self::MySql => &MYSQL.1,
        }
    }

    fn initialised(self) -> (Supervisor, PathBuf) {
        let mut supervisor = Supervisor::new(Settings::default().os_zone);
        std::fs::write(first_statements(supervisor.dir()), ROOT_OVER_TCP).expect("write the first statements");
        let code = supervisor.run(&self.initialise(supervisor.dir()));
        assert!(code == 0, "the data folder of {self:?} could not be made:\n{}", supervisor.log());
        let data = supervisor.dir().join("data");
        // It would give the same identity to all servers that begin with a copy.
        let _ = std::fs::remove_file(data.join("auto.cnf"));
        (supervisor, data)
    }

    /// The command that fills an empty data folder.
    fn initialise(self, dir: &Path) -> Vec<String> {
        let (program, options) = match self {
            Self::MariaDb => (
                installed("mariadb-install-db", "mariadb-server"),
                // A machine may have a name that it cannot look up; no account here is named by it.
                vec!["--auth-root-authentication-method=normal".into(), "--skip-test-db".into(), "--force".into()],
            ),
            Self::MySql => (
                unpacked("mysqld"),
                vec![
                    "--initialize-insecure".into(),
                    format!("--init-file={}", first_statements(dir).display()),
                    // Every server copies it; it grows when one starts.
                    "--innodb-redo-log-capacity=8M".into(),
                ],
            ),
        };
        [program, "--no-defaults".into()].into_iter().chain(options).chain(self.basics(dir)).collect()
    }

    /// The command that runs the server in the foreground.
    fn serve(self, dir: &Path, address: &Address, further: &[&str]) -> Vec<String> {
        let (program, special): (_, &[&str]) = match self {
            Self::MariaDb => (installed("mariadbd", "mariadb-server"), &["--performance-schema=OFF"]),
            Self::MySql => (
                unpacked("mysqld"),
                &[
                    "--mysqlx=OFF",
                    "--skip-log-bin",
                    "--secure-file-priv=NULL",
                    "--innodb-redo-log-capacity=128M",
                    // The performance schema sizes itself by these.
                    "--table-open-cache=400",
                    "--table-definition-cache=400",
                ],
            ),
        };
        let own = [
            format!("--socket={}", address.socket.display()),
            format!("--port={}", address.port),
            format!("--pid-file={}", dir.join("pid").display()),
        ];
        let options = [
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            "--default-time-zone=+00:00",
            "--character-set-server=utf8mb4",
            "--collation-server=utf8mb4_general_ci",
            "--local-infile=1",
            "--max-allowed-packet=64M",
            "--innodb-flush-log-at-trx-commit=2",
        ];
        let options = options.iter().chain(special).chain(further).map(|&option| option.into());
        [program, "--no-defaults".into()].into_iter().chain(self.basics(dir)).chain(own).chain(options).collect()
    }

    /// The options that making the data folder and running the server must share.
    fn basics(self, dir: &Path) -> Vec<String> {
        let mut options = vec![
            format!("--datadir={}", dir.join("data").display()),
            // A server that starts deletes what others have in a temporary folder that they share.
            format!("--tmpdir={}", dir.display()),
            // A killed process loses nothing that it has given to the kernel; only power cuts need syncs.
            "--innodb-flush-method=nosync".into(),
            "--innodb-buffer-pool-size=64M".into(),
        ];
        if self == Self::MariaDb {
            options.extend(["--debug-no-sync".into(), "--innodb-log-file-size=16M".into()]);
        }
        if rustix::process::geteuid().is_root() {
            options.push("--user=root".into());
        }
        options
    }
}

/// What MySQL executes while it makes its data folder, with which it knows root on its socket only.
const ROOT_OVER_TCP: &str = "CREATE USER root@'127.0.0.1'; GRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION;\n";

fn first_statements(dir: &Path) -> PathBuf {
    dir.join("first.sql")
}

/// The full path of a program. Servers live in folders that an ordinary user's PATH leaves out.
fn installed(name: &str, package: &str) -> String {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    let Some(folder) = folders.find(|folder| folder.join(name).is_file()) else {
        panic!("the tests need {name}: `apt-get install {package}`, or run scripts/test");
    };
    folder.join(name).display().to_string()
}

/// A program of the MySQL that scripts/mysql-server unpacks; the folder is the one that it prints.
fn unpacked(name: &str) -> String {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = || set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    let folder = set("INVOICE_EXPORT_MYSQL").or_else(|| Some(cache()?.join("invoice-export/mysql")));
    let program = folder.unwrap_or_default().join("bin").join(name);
    assert!(program.is_file(), "the tests need MySQL: run scripts/test, which unpacks it");
    program.display().to_string()
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bind a free port");
    listener.local_addr().expect("a bound socket has an address").port()
}

/// A dead process stays a zombie until its parent asks for it, as the supervisor does when it ends a server.
pub(crate) fn has_ended(pid: impl std::fmt::Display) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().find(|line| line.starts_with("State:")).is_none_or(|line| line.contains('Z'))
}
