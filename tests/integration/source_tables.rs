//! Which tables a source opens, how it is reached and by which names, and how it refuses the others.

use invoice_export::event::Notice;
use invoice_export::source::{self, Access, TableNames};
use invoice_export::window::Span;
use mysql::prelude::Queryable;

use crate::support::reader::{FOREVER, access, ids, keys, open, pages, refusal, table_with};
use crate::support::{Exporter, Flavor, Table, names_of_this_machine, on_every_flavor, server};

#[test]
fn a_source_is_reached_by_address_by_name_and_by_socket() {
    on_every_flavor(|flavor| {
        let database = table_with(server(flavor), "INT", "DATETIME", &[("1", "NOW()")]);
        let named = names_of_this_machine().into_iter().map(|name| database.url().replace("127.0.0.1", name));
        for url in named.chain([database.socket_url()]) {
            assert_eq!(open(&url).tenants(&FOREVER.into()).unwrap().tenants.len(), 1, "{url}");
        }
        assert!(open(&database.url()).name().0.ends_with(".t_invoice"));
    });
}

#[test]
fn a_password_in_the_url_is_neither_used_nor_told() {
    on_every_flavor(|flavor| {
        let database = table_with(server(flavor), "INT", "DATETIME", &[]);
        database.execute("CREATE USER 'us er'@'%' IDENTIFIED BY 'geheim'");
        database.execute("GRANT SELECT ON *.* TO 'us er'@'%'");
        let url = database.url().replace("root@", "us%20er:geheim@");
        let refused = refusal(&access(&url));
        assert!(refused.contains("Access denied") && !refused.contains("geheim"), "{refused}");
        let given = Access { password: Some("geheim".into()), ..access(&url.replace(":geheim", ":falsch")) };
        let source = source::open(&given).unwrap();
        assert!(!source.name().0.contains("falsch") && !source.name().0.contains("us"), "{}", source.name().0);
        let wrong = refusal(&Access { password: Some("verkehrt".into()), ..access(&url) });
        assert!(wrong.contains("Access denied") && !wrong.contains("verkehrt"), "{wrong}");
    });
}

#[test]
fn a_source_that_cannot_be_used_says_why_in_one_line() {
    on_every_flavor(|flavor| {
        let database = table_with(server(flavor), "INT", "DATETIME", &[]);
        let url = database.url();
        let (base, _) = url.rsplit_once('/').unwrap();
        let folder = tempfile::tempdir().unwrap();
        let missing = format!("sqlite:{}/none.db", folder.path().display());
        for (url, text) in [
            (&*format!("{base}/no_such_database"), "Unknown database"),
            ("mysql://root@127.0.0.1:1/x", "cannot connect to mysql://127.0.0.1:1/x"),
            ("mysql://root@no-such-host.invalid/x", "cannot connect to mysql://no-such-host.invalid:3306/x"),
            (&missing, "cannot open the source"),
        ] {
            let refused = refusal(&access(url));
            assert!(refused.contains(text) && !refused.contains('\n'), "{url}: {refused}");
        }
        assert!(!folder.path().join("none.db").exists());
    });
}

#[test]
fn a_table_that_cannot_be_exported_is_refused_with_the_remedy() {
    on_every_flavor(|flavor| {
        let cases: [(&str, &str); 9] = [
            ("RENAME TABLE t_invoice TO t_other", "there is no table t_invoice"),
            (
                "ALTER TABLE t_invoice DROP COLUMN fcountry, DROP COLUMN finvoice_no",
                "no column fcountry, finvoice_no that",
            ),
            ("ALTER TABLE t_invoice DROP PRIMARY KEY", "has no primary key"),
            (
                "ALTER TABLE t_invoice DROP PRIMARY KEY, ADD PRIMARY KEY (ftenant_id, fid)",
                "has 2 columns (ftenant_id, fid)",
            ),
            ("ALTER TABLE t_invoice MODIFY fid BINARY(16) NOT NULL", "the id column fid has the type binary"),
            ("ALTER TABLE t_invoice MODIFY fid DECIMAL(30) NOT NULL", "the id column fid has the type decimal"),
            (
                "ALTER TABLE t_invoice MODIFY ftenant_id VARBINARY(20)",
                "the tenant column ftenant_id has the type varbinary",
            ),
            ("ALTER TABLE t_invoice MODIFY fupdate_time BIGINT", "the time column fupdate_time has the type bigint"),
            ("ALTER TABLE t_invoice MODIFY fupdate_time VARCHAR(30)", "it must be DATETIME or TIMESTAMP"),
        ];
        for (change, text) in cases {
            let database = table_with(server(flavor), "INT", "DATETIME", &[]);
            database.execute(change);
            let refused = refusal(&access(&database.url()));
            assert!(refused.contains(text) && !refused.contains('\n'), "{change}: {refused}");
        }
    });
}

#[test]
fn a_named_id_must_be_unique_and_never_null() {
    on_every_flavor(|flavor| {
        let database = table_with(server(flavor), "INT", "DATETIME", &[("1", "NOW()"), ("2", "NOW()")]);
        database.execute("ALTER TABLE t_invoice ADD code VARCHAR(10), ADD UNIQUE KEY by_code (code)");
        let named = Access {
            names: TableNames { id: Some("code".into()), ..TableNames::default() },
            ..access(&database.url())
        };
        let refused = refusal(&named);
        assert!(refused.contains("the column code of the table t_invoice cannot be the id"), "{refused}");
        database.execute("UPDATE t_invoice SET code = CONCAT('n', 3 - fid)");
        database.execute("ALTER TABLE t_invoice MODIFY code VARCHAR(10) NOT NULL");
        let mut source = source::open(&named).unwrap();
        assert_eq!(ids(&pages(&mut *source, 1)), ["n1", "n2"]);
        let [Notice::MissingIndex { statement }] = &source.notices()[..] else { panic!("{:?}", source.notices()) };
        assert!(statement.contains("`fupdate_time`, `code`)"), "{statement}");
    });
}

#[test]
fn a_missing_index_is_noticed_with_the_statement_that_makes_it() {
    on_every_flavor(|flavor| {
        let database = table_with(server(flavor), "INT", "DATETIME", &[("1", "NOW()")]);
        assert_eq!(open(&database.url()).notices(), []);
        database.execute("DROP INDEX idx_incremental_export ON t_invoice");
        database.execute("CREATE INDEX other ON t_invoice (ftenant_id, fupdate_time, fissue_status)");
        let mut source = open(&database.url());
        assert_eq!(source.tenants(&FOREVER.into()).unwrap().tenants.len(), 1);
        assert_eq!(keys(&mut *source, "1", &Span::default(), 1).len(), 1);
        let [Notice::MissingIndex { statement }] = &source.notices()[..] else { panic!("{:?}", source.notices()) };
        assert!(statement.starts_with("CREATE INDEX idx_incremental_export ON "), "{statement}");
        database.execute(statement);
        assert_eq!(open(&database.url()).notices(), []);
    });
}

#[test]
fn an_index_that_the_server_ignores_is_missing() {
    on_every_flavor(|flavor| {
        let database = table_with(server(flavor), "INT", "DATETIME", &[("1", "NOW()")]);
        let ignored = match flavor {
            Flavor::MariaDb => "IGNORED",
            Flavor::MySql => "INVISIBLE",
        };
        database.execute(&format!("ALTER TABLE t_invoice ALTER INDEX idx_incremental_export {ignored}"));
        let mut source = open(&database.url());
        assert!(matches!(source.notices()[..], [Notice::MissingIndex { .. }]));
        assert_eq!(source.tenants(&FOREVER.into()).unwrap().tenants.len(), 1);
    });
}

#[test]
fn names_that_need_quotes_are_quoted() {
    on_every_flavor(|flavor| {
        let database = table_with(server(flavor), "INT", "DATETIME", &[("1", "NOW()")]);
        database.execute("ALTER TABLE t_invoice RENAME COLUMN fupdate_time TO `up``date ? :time`");
        database.execute("RENAME TABLE t_invoice TO `order`");
        let names = TableNames { table: "order".into(), time: "up`date ? :time".into(), ..TableNames::default() };
        let mut source = source::open(&Access { names, ..access(&database.url()) }).unwrap();
        assert_eq!(source.tenants(&FOREVER.into()).unwrap().tenants.len(), 1);
        assert_eq!(ids(&pages(&mut *source, 1)), ["1"]);
    });
}

#[test]
fn a_status_may_be_a_word() {
    on_every_flavor(|flavor| {
        let database = table_with(server(flavor), "INT", "DATETIME", &[("1", "NOW()")]);
        database.execute("ALTER TABLE t_invoice MODIFY fissue_status VARCHAR(10) NOT NULL");
        database.execute("UPDATE t_invoice SET fissue_status = 'issued'");
        let names = TableNames { issued: "issued".into(), ..TableNames::default() };
        let mut source = source::open(&Access { names, ..access(&database.url()) }).unwrap();
        assert_eq!(keys(&mut *source, "1", &Span::default(), 1).len(), 1);
    });
}

/// The ids that pages bring, in the order of the source.
fn exported(names: &TableNames, url: &str) -> Vec<String> {
    let mut source = source::open(&Access { names: names.clone(), ..access(url) }).unwrap();
    ids(&pages(&mut *source, 2)).into_iter().map(str::to_owned).collect()
}

#[test]
fn a_table_without_a_unique_column_is_refused_with_the_reason() {
    on_every_flavor(|flavor| {
        let by_two = "ALTER TABLE t_invoice DROP PRIMARY KEY, ADD PRIMARY KEY (fid, fupdate_time)";
        let rows = [("1", "NOW()"), ("2", "NOW()"), ("3", "NOW()")];
        let table = || table_with(server(flavor), "INT", "DATETIME", &rows);
        let named = |id: &str| TableNames { id: Some(id.into()), ..TableNames::default() };
        let refused = |names: &TableNames, url: &str| refusal(&Access { names: names.clone(), ..access(url) });

        let database = table();
        database.execute(by_two);
        let url = database.url();
        assert!(refused(&TableNames::default(), &url).contains("no NOT NULL column has a unique index"));
        database.execute("ALTER TABLE t_invoice ADD UNIQUE (fid)");
        assert!(refused(&TableNames::default(), &url).contains("name a unique column with --id-column: fid"));
        assert_eq!(exported(&named("fid"), &url), ["1", "2", "3"]);

        let database = table();
        database.execute(by_two);
        database.execute("ALTER TABLE t_invoice PARTITION BY KEY (fupdate_time) PARTITIONS 3");
        for names in [TableNames::default(), named("fid")] {
            let refused = refused(&names, &database.url());
            assert!(refused.contains("unique key of a partitioned table contains the columns"), "{refused}");
        }
        database.execute("ALTER TABLE t_invoice REMOVE PARTITIONING");
        database.execute("ALTER TABLE t_invoice DROP PRIMARY KEY, ADD PRIMARY KEY (fid)");
        database.execute("ALTER TABLE t_invoice PARTITION BY KEY (fid) PARTITIONS 3");
        assert_eq!(exported(&TableNames::default(), &database.url()), ["1", "2", "3"]);

        database.execute("CREATE VIEW v_invoice AS SELECT * FROM t_invoice");
        for id in [None, Some("fid".to_owned())] {
            let names = TableNames { table: "v_invoice".into(), id, ..TableNames::default() };
            let refused = refused(&names, &database.url());
            assert!(refused.contains("v_invoice is a view") && refused.contains("--table"), "{refused}");
        }
    });
}

#[test]
fn a_view_of_an_sqlite_file_is_refused_as_one() {
    let table = Table::embedded();
    table.execute("CREATE VIEW v_invoice AS SELECT * FROM t_invoice");
    let refused = Exporter::new(&table).run(["run", "--table", "v_invoice"]).expect(1);
    assert!(refused.error().contains("v_invoice is a view"), "{refused}");
}

#[test]
fn hidden_keys_are_used_and_of_versioned_tables_only_the_present_is_exported() {
    on_every_flavor(|flavor| {
        let table = Table::on(server(flavor));
        let Table::Server(database) = &table else { unreachable!("it lies on a server") };
        let create_with = |setting: &str, more: &str, fid: &str| {
            let mut session = database.connect();
            let created = format!(
                "CREATE TABLE t_invoice ({fid} ftenant_id VARCHAR(64) NOT NULL, fcountry VARCHAR(8), fissue_date DATE,
                 finvoice_no VARCHAR(64), fissue_status TINYINT NOT NULL, fext_field LONGTEXT,
                 fupdate_time DATETIME NOT NULL {more}"
            );
            for sql in ["DROP TABLE t_invoice", setting, &created] {
                session.query_drop(sql).unwrap();
            }
            let old = table.ago(std::time::Duration::from_secs(3_000));
            for number in ["A", "B", "C"] {
                table.execute(&format!(
                    "INSERT INTO t_invoice (ftenant_id, fcountry, fissue_date, finvoice_no, fissue_status, fext_field,
                     fupdate_time) VALUES ('1', 'CN', '2025-11-28', '{number}', 3, '[1]', '{old}')"
                ));
            }
        };
        let assert_exported = || {
            let exporter = Exporter::new(&table);
            exporter.run(["run", "--mode", "incremental"]).expect(0);
            exporter.assert_agrees();
            let now = table.ago(std::time::Duration::from_secs(1_000));
            table.execute(&format!(
                "UPDATE t_invoice SET fext_field = '[2]', fupdate_time = '{now}' WHERE finvoice_no = 'B'"
            ));
            table.execute("DELETE FROM t_invoice WHERE finvoice_no = 'C'");
            for mode in ["incremental", "full"] {
                exporter.run(["run", "--mode", mode]).expect(0);
            }
            assert_eq!(exporter.tree()["1/CN/20251128+B.json"], b"[2]");
            let verify =
                ["verify", "--against-source", "--documents", "--prune", "--prune-up-to", "1", "--format", "json"];
            let verified = exporter.run(verify);
            assert_eq!(verified.json()["removed"], 1, "{verified}");
            exporter.assert_agrees();
        };
        let create = |more: &str, fid: &str| create_with("DO 0", more, fid);
        let key = "fid BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY INVISIBLE,";
        create(")", key);
        assert_exported();
        match flavor {
            Flavor::MySql => {
                create_with("SET SESSION sql_generate_invisible_primary_key = ON", ")", "");
                assert_exported();
            }
            Flavor::MariaDb => {
                create(") WITH SYSTEM VERSIONING", key);
                assert_exported();
                let period = ", began TIMESTAMP(6) GENERATED ALWAYS AS ROW START,
                     ended TIMESTAMP(6) GENERATED ALWAYS AS ROW END, PERIOD FOR SYSTEM_TIME (began, ended))
                     WITH SYSTEM VERSIONING";
                create(period, key);
                assert_exported();
                create(
                    &format!("{period} PARTITION BY SYSTEM_TIME (PARTITION past HISTORY, PARTITION now CURRENT)"),
                    key,
                );
                assert_exported();
            }
        }
    });
}
