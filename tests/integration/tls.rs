//! TLS with a CA of our own: who is believed, who is refused, and what is said then.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::support::exporter::{Exporter, Finished, Running, under};
use crate::support::server::{Flavor, Server, Settings};
use crate::support::table::{Row, Table, on_every_flavor};

/// A CA and one server certificate of it.
pub(crate) struct Certificates {
    folder: TempDir,
}

impl Certificates {
    /// `days` below zero makes a certificate that has expired.
    pub(crate) fn new(names: &str, days: i32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("names"), format!("subjectAltName={names}\n")).unwrap();
        let certificates = Self { folder };
        certificates.openssl("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -subj /CN=TestCA -days 2");
        certificates.openssl("req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=database");
        certificates.openssl(&format!(
            "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days {days} -extfile names"
        ));
        certificates
    }

    fn openssl(&self, arguments: &str) {
        let mut command = Command::new("openssl");
        let output = command.args(arguments.split(' ')).current_dir(self.folder.path()).output();
        let output = output.expect("openssl is missing: apt-get install openssl");
        assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }

    pub(crate) fn ca(&self) -> String {
        self.file("ca.pem")
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// A server with this certificate. It reads the files once, at its start.
    pub(crate) fn server(&self, flavor: Flavor) -> Server {
        Server::fresh_with(flavor, Settings { options: self.options().leak(), ..Settings::default() })
    }

    /// The options by which a server uses this certificate.
    pub(crate) fn options(&self) -> Vec<&'static str> {
        let options = [("ca", "ca.pem"), ("cert", "server.pem"), ("key", "server.key")];
        options.map(|(name, file)| &*format!("--ssl-{name}={}", self.file(file)).leak()).to_vec()
    }
}

/// Runs with this mode, as a user who is let in by TLS only.
fn run(exporter: &Exporter<'_>, mode: &str, ca: Option<&Path>) -> Finished {
    let mut arguments = vec!["run".to_owned(), "--dry-run".to_owned(), "--ssl-mode".to_owned(), mode.to_owned()];
    arguments.extend(ca.into_iter().flat_map(|ca| ["--ssl-ca".to_owned(), ca.display().to_string()]));
    exporter.run(arguments)
}

fn table_for_tls_only(server: &Server) -> (Table, String) {
    let table = Table::on(server);
    table.insert(&Row::default());
    table.execute("CREATE USER secure@'%' REQUIRE SSL");
    table.execute("GRANT SELECT ON *.* TO secure@'%'");
    let url = table.url().replace("root@", "secure@");
    (table, url)
}

fn assert_refused(finished: Finished, why: &str, remedy: &str) {
    let finished = finished.expect(1);
    assert!(finished.error().contains(why) && finished.error().contains(remedy), "{finished}");
}

#[test]
fn a_server_with_a_certificate_of_the_named_ca_is_believed_and_another_ca_is_not() {
    on_every_flavor(|flavor| {
        let certificates = Certificates::new("IP:127.0.0.1", 2);
        let server = certificates.server(flavor);
        let (table, url) = table_for_tls_only(&server);
        let exporter = Exporter::new(&table).env("INVOICE_EXPORT_SOURCE", url);
        let ca = certificates.ca();
        for mode in ["VERIFY_IDENTITY", "verify_ca", "REQUIRED", "PREFERRED"] {
            run(&exporter, mode, Some(Path::new(&ca))).expect(0);
        }
        let others = Certificates::new("IP:127.0.0.1", 2);
        let other = others.ca();
        for mode in ["VERIFY_IDENTITY", "VERIFY_CA"] {
            assert_refused(run(&exporter, mode, Some(Path::new(&other))), "certificate", "--ssl-ca");
            assert_refused(run(&exporter, mode, None), "certificate", "--ssl-ca");
        }
        run(&exporter, "REQUIRED", Some(Path::new(&other))).expect(0);
        assert_refused(run(&exporter, "DISABLED", None), "denied", "");
        assert_refused(
            run(&exporter, "VERIFY_CA", Some(Path::new("no-such-file.pem"))),
            "no-such-file.pem",
            "No such file",
        );
        let key = certificates.file("server.key");
        let broken = [
            ("cut", "-----BEGIN CERTIFICATE-----\nMIIB\n", "certificate 1", "第 1 个证书"),
            (
                "text",
                "-----BEGIN CERTIFICATE-----\nno base64!\n-----END CERTIFICATE-----\n",
                "certificate 1",
                "第 1 个证书",
            ),
            (
                "body",
                "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
                "cannot be read",
                "其中有无法读取的证书",
            ),
            ("der", "0 is how a certificate in DER begins", "cannot be read", "其中有无法读取的证书"),
            ("none", "no certificate at all", "it holds no certificate", "其中没有证书"),
        ];
        for (name, content, why, why_in_chinese) in broken {
            let file = certificates.file(name);
            std::fs::write(&file, content).unwrap();
            let refused = run(&exporter, "VERIFY_IDENTITY", Some(Path::new(&file)));
            assert!(refused.error().contains(&file) && !refused.error().contains("peer"), "{refused}");
            assert_refused(refused, why, "--ssl-ca");
            let args = ["run", "--dry-run", "--lang", "zh", "--ssl-mode", "VERIFY_IDENTITY", "--ssl-ca", &file];
            assert_refused(exporter.run(args), why_in_chinese, "--ssl-ca");
        }
        for (file, why) in [("/dev/null", "no certificate"), (&*key, "no certificate"), ("/", "Is a directory")] {
            assert_refused(run(&exporter, "VERIFY_CA", Some(Path::new(file))), why, file);
        }
    });
}

#[test]
fn a_server_is_found_at_the_second_address_of_its_name_and_known_by_the_name() {
    on_every_flavor(|flavor| {
        let certificates = Certificates::new("DNS:db.test", 2);
        let server = certificates.server(flavor);
        let (table, url) = table_for_tls_only(&server);
        let ca = certificates.ca();
        let exporter = Exporter::new(&table);
        for (addresses, host, code) in [
            // Of these the first in the system's order is the one where no server listens.
            (&["::1", "127.0.0.1"][..], "db.test", 0),
            (&["127.0.0.1", "127.0.0.1"], "db.test", 0),
            (&["::1"], "db.test", 1),
            (&["::1", "127.0.0.1"], "other.test", 1),
        ] {
            let hosts = exporter.home().join("hosts");
            std::fs::write(&hosts, addresses.iter().map(|address| format!("{address} {host}\n")).collect::<String>())
                .unwrap();
            let script = format!("mount --bind {} /etc/hosts && exec \"$@\"", hosts.display());
            let source = url.replace("127.0.0.1", host);
            let args = ["run", "--dry-run", "--retry-for", "0s", "--ssl-mode", "VERIFY_IDENTITY", "--ssl-ca", &ca];
            let args = [&args[..], &["--source", &source]].concat();
            let mut command =
                under(&exporter, Command::new("unshare").args(["--mount", "sh", "-c", &script, "-"]), &args);
            Running::new(&mut command).wait().expect(code);
        }
    });
}

#[test]
fn a_certificate_for_another_host_passes_verify_ca_only_and_an_expired_one_neither() {
    on_every_flavor(|flavor| {
        let foreign = Certificates::new("DNS:db.example", 2);
        let server = foreign.server(flavor);
        let (table, url) = table_for_tls_only(&server);
        let exporter = Exporter::new(&table).env("INVOICE_EXPORT_SOURCE", url);
        let ca = foreign.ca();
        run(&exporter, "VERIFY_CA", Some(Path::new(&ca))).expect(0);
        assert_refused(run(&exporter, "VERIFY_IDENTITY", Some(Path::new(&ca))), "not valid for", "--ssl-mode");

        let expired = Certificates::new("IP:127.0.0.1", -1);
        let server = expired.server(flavor);
        let (table, url) = table_for_tls_only(&server);
        let exporter = Exporter::new(&table).env("INVOICE_EXPORT_SOURCE", url);
        let ca = expired.ca();
        for mode in ["VERIFY_IDENTITY", "VERIFY_CA"] {
            assert_refused(run(&exporter, mode, Some(Path::new(&ca))), "certificate", "--ssl-mode");
        }
    });
}

#[test]
fn a_server_without_tls_is_used_in_the_clear_only_where_that_was_allowed() {
    on_every_flavor(|flavor| {
        let options: &[&str] = match flavor {
            Flavor::MariaDb => &["--skip-ssl"],
            Flavor::MySql => &["--tls-version="],
        };
        let server = Server::fresh_with(flavor, Settings { options, ..Settings::default() });
        let table = Table::on(&server);
        table.insert(&Row::default());
        let exporter = Exporter::new(&table);
        for mode in ["PREFERRED", "DISABLED"] {
            run(&exporter, mode, None).expect(0);
        }
        for mode in ["REQUIRED", "VERIFY_CA", "VERIFY_IDENTITY"] {
            assert_refused(run(&exporter, mode, None), "offers no TLS", "--ssl-mode DISABLED");
        }
    });
}

#[test]
fn an_account_that_requires_tls_is_let_in_on_this_machine_or_told_so() {
    on_every_flavor(|flavor| {
        let certificates = Certificates::new("IP:127.0.0.1", 2);
        let server = certificates.server(flavor);
        let (table, url) = table_for_tls_only(&server);
        let exporter = Exporter::new(&table).env("INVOICE_EXPORT_SOURCE", &url);
        exporter.run(["run", "--dry-run"]).expect(0);
        for (lang, words) in [("en", "requires TLS (REQUIRE SSL"), ("zh", "要求 TLS（REQUIRE SSL")] {
            let refused = exporter.run(["run", "--dry-run", "--ssl-mode", "DISABLED", "--lang", lang]);
            assert_refused(refused, words, "--ssl-mode REQUIRED");
        }
        let socket = format!("{url}?socket={}", server.dir().join("socket").display());
        let by_socket = exporter.run(["run", "--dry-run", "--source", &socket]);
        assert_refused(by_socket, "requires TLS (REQUIRE SSL", "by TCP with --ssl-mode REQUIRED");
        // Both ways are refused, so TLS is not the reason.
        table.execute("ALTER USER secure@'%' IDENTIFIED BY 'Hush1-longer-than-a-name' REQUIRE SSL");
        let refused = exporter.run(["run", "--dry-run"]).expect(1);
        assert!(refused.error().contains("check the user") && !refused.error().contains("requires TLS"), "{refused}");
    });
}

#[test]
fn a_server_that_takes_encrypted_connections_only_is_reached_by_tls_or_says_so() {
    on_every_flavor(|flavor| {
        let server = Certificates::new("IP:127.0.0.1", 2).server(flavor);
        let table = Table::on(&server);
        table.insert(&Row::default());
        table.execute("CREATE USER reader@'%'");
        table.execute("GRANT SELECT ON *.* TO reader@'%'");
        table.execute("SET GLOBAL require_secure_transport = ON");
        let exporter = Exporter::new(&table).env("INVOICE_EXPORT_SOURCE", table.url().replace("root@", "reader@"));
        exporter.run(["run", "--dry-run"]).expect(0);
        // MariaDB answers as to a wrong password.
        let words = match flavor {
            Flavor::MariaDb => "server requires TLS",
            Flavor::MySql => "insecure transport are prohibited",
        };
        assert_refused(run(&exporter, "DISABLED", None), words, "--ssl-mode REQUIRED");
    });
}
