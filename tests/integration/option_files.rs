//! `--defaults-file`: what MySQL's own programs take from such a file, the export takes too.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::support::exporter::{Exporter, Finished};
use crate::support::server::server;
use crate::support::table::{Row, Table, on_every_flavor};

/// An option file, a table, and a user who may read it.
struct Place {
    folder: TempDir,
    table: Table,
    user: String,
}

impl Place {
    fn new(table: Table) -> Self {
        table.insert(&Row::default());
        let user = format!("reader_{}", table.url().rsplit_once('/').unwrap().1);
        table.execute(&format!("CREATE USER {user}"));
        table.execute(&format!("GRANT SELECT ON *.* TO {user}"));
        Self { folder: tempfile::tempdir().unwrap(), table, user }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("my.cnf")
    }

    fn write(&self, text: &str) {
        fs::write(self.file(), text).unwrap();
    }

    fn set_password(&self, password: &str) {
        let quoted = password.replace('\'', "''");
        // The harness makes a backslash an ordinary character.
        self.table.execute(&format!("ALTER USER {} IDENTIFIED BY '{quoted}'", self.user));
    }

    /// A dry run as this user, who is named in the URL or not.
    fn run(&self, user: &str, more: &[(&str, &Path)]) -> Finished {
        let url = self.table.url().replace("root@", user);
        let exporter = Exporter::new(&self.table).env("INVOICE_EXPORT_SOURCE", url);
        let exporter = more.iter().fold(exporter, |exporter, (name, value)| exporter.env(name, value));
        exporter.run([Path::new("run"), Path::new("--dry-run"), Path::new("--defaults-file"), &self.file()])
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.table.execute(&format!("DROP USER {}", self.user));
    }
}

/// The password that MariaDB's own reader of such files finds in the two groups.
fn theirs(file: &Path) -> Option<String> {
    let mut command = Command::new("my_print_defaults");
    command.arg(format!("--defaults-file={}", file.display())).args(["client", "invoice-export"]);
    let output = command.output().expect("my_print_defaults is missing: apt-get install mariadb-server");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .filter_map(|line| line.trim_start_matches("--loose").split_once("password="))
        .next_back()
        .map(|(_, value)| value.to_owned())
}

#[test]
fn a_password_is_read_as_the_servers_own_programs_read_it() {
    let values = [
        "plain",
        " spaced  ",
        "\" inside \"",
        "'it is'  # a comment",
        "a#b",
        "\"a#b\" # c",
        "'a\"b#c'",
        "\"a\\\"b#c\"",
        "a;b",
        r"a\sb\\c\td",
        r"C:\dir\x",
        r"\",
        "\"\\\\\"",
        "'open",
        "a=b",
        "\"\"",
        "发票",
        "x\r",
        "'a' 'b'",
    ];
    let files = values.map(|value| format!("[client]\npassword={value}\n")).into_iter().chain(
        [
            "[client]\npassword=a\n[mysql]\npassword=b\n[invoice-export]\npassword=c\n[mysqldump]\npassword=d\n",
            "[invoice-export]\npassword=a\n[client]\n\tpassword\t=\tb",
            "; old\n[client]\nloose_password=a\nport=1\nskip-ssl\n",
            "[ client]\npassword=a\n[client ]\npassword=b\n",
            "[client]#x\npassword=a\n[Client]\npassword=b\n",
            "[client]\npassword=a\nPassword=b\npass=c\n",
        ]
        .map(str::to_owned),
    );
    let files: Vec<String> = files.collect();
    on_every_flavor(|flavor| {
        let place = Place::new(Table::on(server(flavor)));
        for text in &files {
            place.write(text);
            let password = theirs(&place.file()).unwrap_or_else(|| panic!("no password in {text:?}"));
            place.set_password(&password);
            let finished = place.run(&format!("{}@", place.user), &[]);
            assert!(finished.status.success(), "the password is {password:?} in {text:?}: {finished}");
        }
    });
}

#[test]
fn the_user_is_taken_where_the_url_names_none_and_the_password_has_its_rank() {
    on_every_flavor(|flavor| {
        let place = Place::new(Table::on(server(flavor)));
        place.set_password("right");
        place.write(&format!("[client]\nuser={}\npassword=right\n", place.user));
        place.run("", &[("MYSQL_PWD", Path::new("wrong"))]).expect(0);
        let refused = place.run("nobody@", &[]).expect(1);
        assert!(refused.stderr.contains("--defaults-file"), "{refused}");
        let (wrong, right) = (place.folder.path().join("wrong"), place.folder.path().join("right"));
        fs::write(&wrong, "wrong\n").unwrap();
        fs::write(&right, "right\n").unwrap();
        place.run("", &[("INVOICE_EXPORT_PASSWORD_FILE", &wrong)]).expect(1);
        place.write(&format!("[client]\nuser={}\npassword=wrong\n", place.user));
        place.run("", &[("INVOICE_EXPORT_PASSWORD_FILE", &right)]).expect(0);
        // What the file leaves out comes from elsewhere.
        place.write(&format!("[client]\nuser={}\n", place.user));
        place.run("", &[("MYSQL_PWD", Path::new("right"))]).expect(0);
    });
}

#[test]
fn a_file_not_to_be_trusted_or_not_understood_is_refused_in_both_languages() {
    let table = Table::embedded();
    let exporter = Exporter::new(&table);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("my.cnf");
    let refused = |lang: &str| {
        let exporter = exporter.run(["run", "--lang", lang, "--defaults-file", file.to_str().unwrap()]).expect(2);
        assert!(exporter.error().contains(file.to_str().unwrap()), "{exporter}");
        exporter.error().to_owned()
    };
    let cases = [
        ("!includedir /etc/mysql/conf.d\n", "line 1: other files are not read", "第 1 行: 本程序不读取"),
        ("# secret\nuser=a\n", "line 2: an option before any group", "第 2 行: 选项之前没有组名"),
        ("[client\n", "line 1: a group without its closing ]", "第 1 行: 组名缺少右括号"),
        ("[client]\npassword\n", "line 2: password has no value", "第 2 行: password 没有值"),
    ];
    for (text, english, chinese) in cases {
        fs::write(&file, text).unwrap();
        assert!(refused("en").contains(english) && refused("zh").contains(chinese), "{text}");
    }
    fs::write(&file, b"[client]\nuser=caf\xe9\n").unwrap();
    assert!(refused("en").contains("line 2: the value of user is not UTF-8"));
    fs::write(&file, "[client]\nuser=a\n").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o646)).unwrap();
    assert!(refused("en").contains("chmod o-w") && refused("zh").contains("chmod o-w"));
    // As the message says; that others may read it is the owner's affair.
    assert!(Command::new("chmod").args(["o-w"]).arg(&file).status().unwrap().success());
    exporter.run(["run", "--defaults-file", file.to_str().unwrap()]).expect(0);
    fs::remove_file(&file).unwrap();
    let missing = exporter.run(["run", "--defaults-file", file.to_str().unwrap()]).expect(2);
    assert!(missing.stderr.contains(file.to_str().unwrap()), "{missing}");
}
