//! The password that a command prints reaches the server, and a command that fails is a refusal that shows nothing of it.

use crate::support::exporter::Exporter;
use crate::support::server::server;
use crate::support::table::{Row, Table, on_every_flavor};

#[test]
fn a_command_gives_the_password_unless_a_file_does() {
    on_every_flavor(|flavor| {
        let table = Table::on(server(flavor));
        table.insert(&Row::default());
        let user = format!("reader_{}", table.url().rsplit_once('/').unwrap().1);
        table.execute(&format!("CREATE USER {user} IDENTIFIED BY 'Hush1 #%'"));
        table.execute(&format!("GRANT SELECT ON *.* TO {user}"));
        let url = table.url().replace("root@", &format!("{user}@"));
        let exporter = Exporter::new(&table).env("INVOICE_EXPORT_SOURCE", url).env("MYSQL_PWD", "wrong");
        let command = "echo 'asking the vault' >&2; echo 'Hush1 #%'; echo more";
        let done = exporter.run(["run", "--password-command", command]).expect(0);
        assert!(done.stderr.contains("asking the vault") && !format!("{done}").contains("Hush1"), "{done}");
        let file = exporter.home().join("password");
        std::fs::write(&file, "wrong\n").unwrap();
        let both =
            ["run", "--password-command", command, "--password-file", file.to_str().unwrap(), "--retry-for", "0s"];
        exporter.run(both).expect(1);
        let failed = exporter.run(["run", "--password-command", "echo Hush1; exit 3"]).expect(2);
        assert!(failed.error().contains("exit status: 3") && !failed.stderr.contains("Hush1"), "{failed}");
        table.execute(&format!("DROP USER {user}"));
    });
}
