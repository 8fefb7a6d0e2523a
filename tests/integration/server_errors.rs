//! What each error of a server, or of a proxy in its place, means for a run, wherever it comes: the
//! whole table of `source/error_codes.rs`, through a proxy, at every stage.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use invoice_export::source::error_codes::{ErrorClass, TABLE};

use crate::support::rounds::is_campaign;
use crate::support::server::{Flavor, server};
use crate::support::table::{Table, on_every_flavor};
use crate::support::{Exporter, Proxy};

/// Most of a run that is tried again is a pause.
const AT_ONCE: usize = 24;

/// Words of a statement of each stage on the way to a connection that serves.
const OPENING: [&str; 7] = [
    "SET NAMES",
    "sql_mode = ''",
    "SELECT @@GLOBAL.server_",
    "information_schema.COLUMNS",
    "information_schema.STATISTICS",
    "FROM `t_invoice` WHERE FALSE",
    "FORCE INDEX (`idx_incremental_export`) LIMIT 0",
];

/// The same for what is asked after that.
fn asking(flavor: Flavor) -> [&'static str; 7] {
    let status = match flavor {
        Flavor::MariaDb => "ALL SLAVES STATUS",
        Flavor::MySql => "REPLICA STATUS",
    };
    [
        "NOW(",
        "LEFT(INFO",
        "INNODB_TRX",
        status,
        "CAST(MAX(",
        "ORDER BY `fupdate_time`, `fid`",
        "OCTET_LENGTH(`fext_field`)",
    ]
}

/// Every code that the table names; of a long row the ends and some between.
fn codes(which: fn(ErrorClass) -> bool) -> Vec<u16> {
    let mut codes: Vec<u16> = TABLE
        .iter()
        .filter(|row| which(row.class))
        .flat_map(|row| row.codes.clone().step_by(if row.codes.len() > 100 { 111 } else { 1 }))
        .collect();
    // A row of its own in the middle of another one stands before that.
    codes.retain(|code| TABLE.iter().find(|row| row.codes.contains(code)).is_some_and(|row| which(row.class)));
    codes
}

fn is_tried_again(class: ErrorClass) -> bool {
    class.passes() || matches!(class, ErrorClass::Overtime(_))
}

/// Each with a proxy and an output of its own.
fn at_once<T: Copy + Sync>(cases: &[T], table: &Table, each: impl Fn(T, &Proxy, &Exporter<'_>) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|threads| {
        for _ in 0..AT_ONCE {
            threads.spawn(|| {
                let proxy = Proxy::to(&table.url());
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let exporter = Exporter::in_memory(table).env("INVOICE_EXPORT_SOURCE", proxy.url());
                    each(*case, &proxy, &exporter);
                }
            });
        }
    });
}

/// Every code somewhere, and everywhere those that matter most; in the campaign every code everywhere.
fn places(codes: &[u16]) -> Vec<(u16, usize)> {
    const FIRST: [u16; 7] = [2006, 2013, 1461, 1615, 1243, 1135, 9111];
    let everywhere = |code: &u16| is_campaign() || FIRST.contains(code);
    let all = codes.iter().enumerate().flat_map(|(n, code)| (0..OPENING.len()).map(move |place| (n, *code, place)));
    all.filter(|(n, code, place)| everywhere(code) || n % OPENING.len() == *place)
        .map(|(_, code, place)| (code, place))
        .collect()
}

fn table(flavor: Flavor) -> Table {
    let table = Table::on(server(flavor));
    table.load_sample(30, 1, "1:0.6,10:0.3,89:0.1");
    table
}

#[test]
fn an_error_that_passes_by_itself_is_asked_again_at_every_stage() {
    on_every_flavor(|flavor| {
        let table = table(flavor);
        at_once(&places(&codes(is_tried_again)), &table, |(code, place), proxy, exporter| {
            let words = [OPENING[place], asking(flavor)[place]];
            proxy.refuse_each(words.map(|words| (words, code)));
            let run = exporter.run(["run", "--mode", "incremental", "--format", "json"]).expect(0);
            assert_eq!(proxy.not_yet_refused(), [""; 0], "{code}: {run}");
            assert_eq!(run.json()["retries"], words.len(), "{code} for {words:?}: {run}");
            assert_eq!(run.stderr.matches("an error of the test's own").count(), words.len(), "{code}: {run}");
            assert_eq!(exporter.ask_one("SELECT retries FROM run"), words.len().to_string(), "{code}");
            assert!(!run.stderr.contains("CREATE INDEX"), "{code} says nothing about an index: {run}");
            exporter.assert_agrees();
            assert_eq!(exporter.ask("SELECT id FROM reject"), [""; 0], "{code} for {words:?}");
        });
    });
}

#[test]
fn a_row_that_the_server_lacks_memory_for_is_a_reject_and_holds_no_other_back() {
    on_every_flavor(|flavor| {
        let table = table(flavor);
        at_once(&[5, 1037, 1041, 3015, 4081, 4082], &table, |code, proxy, exporter| {
            // The page, the first page of rows alone, and the first row of all: once, and three times more.
            proxy.refuse_each([("OCTET_LENGTH(`fext_field`)", code); 12]);
            let summary = exporter.run(["run", "--format", "json"]).expect(3).json();
            assert_eq!((&summary["rejected"], &summary["retries"]), (&1.into(), &9.into()), "{code}: {summary}");
            assert_eq!(exporter.ask("SELECT reason FROM reject"), ["unreadable"], "{code}");
            exporter.run(["run", "--mode", "incremental"]).expect(0);
            exporter.assert_agrees();
        });
    });
}

/// Which table it is, what is still open, and how far a replica is behind.
#[test]
fn what_a_run_can_do_without_ends_no_run_where_the_server_takes_too_long_for_it() {
    on_every_flavor(|flavor| {
        let table = table(flavor);
        let [_, list, transactions, replication, ..] = asking(flavor);
        let cases = ["CAST(AUTO_INCREMENT AS CHAR)", list, transactions, replication];
        at_once(&cases, &table, |words, proxy, exporter| {
            proxy.refuse_each([(words, 1969); 4]);
            let run = exporter.run(["run", "--mode", "incremental", "--format", "json"]).expect(0);
            // A list that is not shown may have a second one in its place, and replication is asked for in two ways.
            assert_eq!(proxy.not_yet_refused(), [""; 0], "{words}: {run}");
            assert_eq!(run.json()["retries"], 3, "{words}: {run}");
            exporter.assert_agrees();
        });
    });
}

#[test]
fn a_prepared_statement_that_a_server_knows_no_more_is_prepared_again() {
    on_every_flavor(|flavor| {
        let table = table(flavor);
        let statements = [
            "information_schema.STATISTICS",
            "CAST(MAX(",
            "ORDER BY `fupdate_time`, `fid`",
            "OCTET_LENGTH(`fext_field`)",
        ];
        let cases: Vec<_> =
            statements.into_iter().flat_map(|words| [1243, 1615, 2013].map(|code| (words, code))).collect();
        at_once(&cases, &table, |(words, code), proxy, exporter| {
            proxy.refuse_execution(words, code);
            let run = exporter.run(["run", "--mode", "incremental", "--format", "json"]).expect(0);
            assert_eq!(run.json()["retries"], 1, "{code} for {words}: {run}");
            exporter.assert_agrees();
        });
    });
}

#[test]
fn a_login_that_is_refused_in_passing_is_tried_again() {
    on_every_flavor(|flavor| {
        let table = table(flavor);
        at_once(&codes(ErrorClass::passes), &table, |code, proxy, exporter| {
            proxy.refuse_login(code);
            let run = exporter.run(["run", "--format", "json"]).expect(0);
            assert_eq!(run.json()["retries"], 1, "{code}: {run}");
            exporter.assert_agrees();
        });
    });
}

#[test]
fn an_error_that_stays_is_told_at_once_at_every_stage() {
    on_every_flavor(|flavor| {
        let table = table(flavor);
        let codes = [codes(|class| !is_tried_again(class)), vec![1064, 1105, 1815]].concat();
        at_once(&places(&codes), &table, |(code, place), proxy, exporter| {
            for words in [OPENING[place], asking(flavor)[place]] {
                proxy.refuse(words, code);
                let run = exporter.run(["run", "--mode", "incremental", "--dry-run"]);
                assert!(matches!(run.status.code(), Some(0 | 1 | 3)), "{code} for {words}: {run}");
                assert!(!run.stderr.contains("trying again"), "{code} for {words}: {run}");
                assert_eq!(proxy.not_yet_refused(), [""; 0], "{code} for {words}: {run}");
            }
            proxy.refuse_login(code);
            // Otherwise a refused login is made by TLS.
            let run = exporter.run(["run", "--ssl-mode", "DISABLED"]).expect(1);
            assert!(!run.stderr.contains("trying again"), "{code} for the login: {run}");
            exporter.run(["run", "--mode", "incremental"]).expect(0);
            exporter.assert_agrees();
        });
    });
}

#[test]
fn only_an_error_that_says_so_means_that_an_index_or_a_privilege_is_missing() {
    on_every_flavor(|flavor| {
        let table = table(flavor);
        let proxy = Proxy::to(&table.url());
        let exporter = Exporter::in_memory(&table).env("INVOICE_EXPORT_SOURCE", proxy.url());
        let by_index = "FORCE INDEX (`idx_incremental_export`) LIMIT 0";
        for (code, stands_for_it) in [(1176, true), (1712, true), (1064, false), (1030, false), (1142, false)] {
            proxy.refuse(by_index, code);
            let run = exporter.run(["run", "--dry-run"]);
            let told = run.stderr.contains("CREATE INDEX");
            assert_eq!((run.status.code(), told), (Some(i32::from(!stands_for_it)), stands_for_it), "{code}: {run}");
        }
        for (code, stands_for_it) in [(1142, true), (1143, true), (1146, true), (1030, false), (1194, false)] {
            proxy.refuse("FROM `t_invoice` WHERE FALSE", code);
            let run = exporter.run(["run", "--dry-run"]).expect(1);
            assert_eq!(run.stderr.contains("grant SELECT"), stands_for_it, "{code}: {run}");
            assert!(run.stderr.contains("an error of the test's own"), "{code}: {run}");
        }
    });
}

#[test]
fn an_index_of_another_kind_keeps_no_run_from_the_table() {
    on_every_flavor(|flavor| {
        let table = Table::on(server(flavor));
        table.execute("ALTER TABLE t_invoice ADD note TEXT, ADD place POINT NOT NULL");
        table.execute("CREATE FULLTEXT INDEX by_words ON t_invoice (note)");
        table.execute("CREATE SPATIAL INDEX by_place ON t_invoice (place)");
        table.execute("CREATE INDEX by_note ON t_invoice (note(9))");
        if matches!(flavor, Flavor::MySql) {
            table.execute("CREATE INDEX by_expression ON t_invoice ((finvoice_no + 1))");
        }
        let run = Exporter::in_memory(&table).run(["run", "--mode", "incremental"]).expect(0);
        assert!(!run.stderr.contains("CREATE INDEX"), "{run}");
    });
}
