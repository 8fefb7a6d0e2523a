//! Pipes in the place of the files that an operator names.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::exporter::{Exporter, Running, under};
use crate::support::server::server;
use crate::support::table::{Row, Table, on_every_flavor};

fn make_pipe(path: &Path) -> String {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_pipe_that_no_program_writes_to_is_refused_at_once() {
    let table = Table::embedded();
    let exporter = Exporter::new(&table);
    fs::create_dir(exporter.output()).unwrap();
    let pipe = make_pipe(&exporter.home().join("pipe"));
    let source = format!("sqlite:{pipe}");
    let silent = "mysql://root@127.0.0.1:1/shop";
    let cases = [
        (&["run", "--password-file", &pipe][..], 2, "no program writes to it", "没有程序向其写入"),
        (&["run", "--defaults-file", &pipe], 2, "no program writes to it", "没有程序向其写入"),
        (&["import-legacy-state", &pipe], 2, "no program writes to it", "没有程序向其写入"),
        (&["run", "--source", &source], 1, "it is no regular file", "它不是普通文件"),
        (
            &["run", "--source", silent, "--ssl-mode", "VERIFY_CA", "--ssl-ca", &pipe],
            1,
            "each connection reads it again",
            "每次连接都要重新读取该文件",
        ),
    ];
    for (args, code, english, chinese) in cases {
        for (lang, words) in [("en", english), ("zh", chinese)] {
            let finished = exporter.run([args, &["--lang", lang]].concat()).expect(code);
            assert!(finished.stderr.contains(words), "{args:?}: {finished}");
            assert!(!finished.stderr.contains("trying again"), "{finished}");
        }
    }
}

#[test]
fn a_password_comes_by_a_pipe_that_a_program_writes_to() {
    on_every_flavor(|flavor| {
        let table = Table::on(server(flavor));
        table.insert(&Row::default());
        let user = format!("piped_{}", table.url().rsplit_once('/').unwrap().1);
        table.execute(&format!("CREATE USER {user} IDENTIFIED BY 'hush'"));
        table.execute(&format!("GRANT SELECT ON *.* TO {user}"));
        let exporter =
            Exporter::new(&table).env("INVOICE_EXPORT_SOURCE", table.url().replace("root@", &format!("{user}@")));
        let (pipe, file) = (exporter.home().join("pipe"), exporter.home().join("password"));
        fs::write(&file, "hush\n").unwrap();
        let (pipe, file) = (make_pipe(&pipe), file.to_str().unwrap());
        for script in [
            format!("exec \"$@\" --password-file <(cat {file})"),
            format!("cat {file} | \"$@\" --password-file /dev/stdin"),
            format!("exec \"$@\" --password-file /dev/stdin < {file}"),
            format!("exec \"$@\" --defaults-file <(echo [client]; echo password=$(cat {file}))"),
            // The shell keeps both ends open, so that the program need not wait for the writer.
            format!("exec 9<>{pipe}; cat {file} >{pipe}; exec 8<{pipe} 9<&-; exec \"$@\" --password-file {pipe}"),
        ] {
            let mut command = under(&exporter, Command::new("bash").args(["-c", &script, "-"]), &["run", "--dry-run"]);
            Running::new(&mut command).wait().expect(0);
        }
        table.execute(&format!("DROP USER {user}"));
    });
}
