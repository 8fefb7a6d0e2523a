//! The machine that a document speaks of: a root file system, a network and processes of its own, in which
//! `db.example` is a private MariaDB with TLS. What is done there reaches nothing outside.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;

use tempfile::TempDir;

use super::markdown::root;
use crate::support::exporter::{Finished, Running};
use crate::support::server::{Flavor, Server, Settings};
use crate::support::table::Table;
use crate::tls::Certificates;

/// Where the exchange folder stands in the place.
pub(crate) const EXCHANGE: &str = "/mnt";
/// The private copy of the repository: the folder that commands start in.
pub(crate) const WORK: &str = "/root/invoice-export";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Its arguments: the exchange folder, the repository, the binary, the file with the CA. It lives as long as its stdin.
const SET_UP: &str = r#"
set -e
exec 2>&1
mount -t tmpfs tmpfs /mnt
mkdir /mnt/{upper,work,root,upper2,work2}
new=/mnt/root
mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work $new
mkdir -p $new/root/invoice-export
mount -t overlay overlay -o "lowerdir=$2,upperdir=/mnt/upper2,workdir=/mnt/work2" $new/root/invoice-export
mkdir -p $new/root/invoice-export/target/release
[ -e $new/root/invoice-export/target/release/invoice-export ] || touch $new/root/invoice-export/target/release/invoice-export
mount --bind "$3" $new/root/invoice-export/target/release/invoice-export
mount --rbind /dev $new/dev
mount -t proc proc $new/proc
mount --bind "$1" $new/mnt
for folder in srv tmp; do mount -t tmpfs tmpfs $new/$folder; done
chmod 1777 $new/tmp
cp "$4" $new/etc/db-ca.pem
mkdir -p $new/etc/ssl/certs
cat "$4" >>$new/etc/ssl/certs/ca-certificates.crt
cat >$new/etc/hosts <<END
127.0.0.1 localhost
127.0.1.1 export1
192.0.2.10 db.example
END
cat >>$new/etc/passwd <<END
export:x:2000:2000::/home/export:/bin/bash
ines:x:2001:2001::/home/ines:/bin/bash
END
cat >>$new/etc/group <<END
export:x:2000:
ines:x:2001:
billing:x:2002:export,ines
auditors:x:2003:ines
END
# What builds the program finds it built.
cat >$new/usr/local/bin/cargo <<'END'
#!/bin/sh
echo '{"executable":"/root/invoice-export/target/release/invoice-export"}'
END
chmod 755 $new/usr/local/bin/cargo
mkdir -p $new/home/export $new/home/ines
rm -f $new/root/.my.cnf
hostname export1
ip link set lo up
ip addr add 192.0.2.10/32 dev lo
echo ready
exec cat >/dev/null
"#;

pub(crate) struct Place {
    keeper: Child,
    exchange: TempDir,
    // Dropped before the server that it lies on.
    table: Table,
    _server: Server,
}

impl Place {
    /// A machine with an empty table `t_invoice`, without its index, in the database `invoices`, with `admin`.
    pub(crate) fn new() -> Self {
        let exchange = tempfile::tempdir().unwrap();
        let mut keeper = Command::new("unshare");
        keeper.args(["--mount", "--net", "--uts", "--pid", "--fork", "--kill-child", "bash", "-c", SET_UP, "set-up"]);
        keeper.arg(exchange.path()).arg(root()).args([env!("CARGO_BIN_EXE_invoice-export"), &certificates().ca()]);
        let mut keeper = keeper.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("start unshare");
        let mut said = BufReader::new(keeper.stdout.take().unwrap());
        let (mut line, mut all) = (String::new(), String::new());
        while line.trim_end() != "ready" {
            line.clear();
            assert!(said.read_line(&mut line).unwrap() > 0, "the place could not be made (root is needed): {all}");
            all += &line;
        }
        let server = Server::in_network_of(keeper.id(), Flavor::MariaDb, settings());
        let database = server.database_named("invoices");
        database.create_table();
        let table = Table::Server(database);
        table.execute("CREATE USER admin@'%'");
        table.execute("GRANT ALL ON *.* TO admin@'%' WITH GRANT OPTION");
        Self { keeper, exchange, table, _server: server }
    }

    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    /// A file that both sides see, by its name below [`EXCHANGE`].
    pub(crate) fn put(&self, name: &str, content: &str) {
        fs::write(self.exchange.path().join(name), content).unwrap();
    }

    /// None where there is no such file.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        let bytes = fs::read(self.exchange.path().join(name)).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// What this script of bash does there, as root, in the working folder, with a plain environment.
    pub(crate) fn run(&self, script: &str) -> Finished {
        self.put("script", script);
        let of_keeper = |kind: &str, file: &str| format!("--{kind}=/proc/{}/ns/{file}", self.keeper.id());
        let mut command = Command::new("nsenter");
        command.args([of_keeper("mount", "mnt"), of_keeper("net", "net"), of_keeper("uts", "uts")]);
        command.arg(of_keeper("pid", "pid_for_children")).args(["chroot", "/mnt/root", "env", "-i", "-C", WORK]);
        command.args(["HOME=/root", "LC_ALL=C.UTF-8", "TZ=UTC", "USER=root", "LOGNAME=root"]);
        command.arg(format!("PATH={PATH}")).arg("bash").arg(Path::new(EXCHANGE).join("script"));
        Running::new(&mut command).wait()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Its first process ends with its stdin, and all others with that.
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

fn certificates() -> &'static Certificates {
    static CERTIFICATES: LazyLock<Certificates> = LazyLock::new(|| Certificates::new("DNS:db.example", 2));
    &CERTIFICATES
}

fn settings() -> Settings {
    static OPTIONS: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
        let mut options = certificates().options();
        options.push("--bind-address=*");
        options
    });
    Settings { options: &OPTIONS, ..Settings::default() }
}
