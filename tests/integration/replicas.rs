//! A server that copies another one, hours behind: what it has not applied yet comes late, and is not
//! lost; how far behind it is, is told where it can be known.

use std::thread;
use std::time::{Duration, Instant};

use mysql::Conn;
use mysql::prelude::Queryable;

use crate::support::exporter::Finished;
use crate::support::server::{Flavor, Server, Settings};
use crate::support::{Exporter, Table, on_every_flavor};

const HOUR: u32 = 3600;

fn conn(url: &str) -> Conn {
    Conn::new(mysql::Opts::from_url(&format!("{url}?prefer_socket=false")).expect("a URL")).expect("connect")
}

/// Tells a replica in the words of its flavor.
fn tell(replica: &mut Conn, flavor: Flavor, what: &str) {
    let sql = match flavor {
        Flavor::MariaDb => {
            what.replace("REPLICATION SOURCE", "MASTER").replace("SOURCE_", "MASTER_").replace("REPLICA", "SLAVE")
        }
        Flavor::MySql => what.to_owned(),
    };
    let sql = if flavor == Flavor::MariaDb { sql.replace(", GET_MASTER_PUBLIC_KEY = 1", "") } else { sql };
    replica.query_drop(&sql).unwrap_or_else(|error| panic!("{error} in: {sql}"));
}

/// A server that copies another one, from whose first statement on it has everything, but only after
/// this many seconds.
fn pair(flavor: Flavor, delay: u32) -> (Server, Server, Conn) {
    let start = |options| Server::fresh_with(flavor, Settings { options, ..Settings::default() });
    let primary = start(&["--log-bin=primary", "--server-id=1", "--binlog-format=ROW"]);
    let replica = start(&["--server-id=2", "--relay-log=relay"]);
    let [from, to] = [&primary, &replica].map(|server| server.database().url());
    let port = from.rsplit_once(':').and_then(|(_, rest)| rest.split('/').next()).expect("a port").to_owned();
    let mut copying = conn(to.rsplit_once('/').expect("a database").0);
    tell(
        &mut copying,
        flavor,
        &format!(
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = {port}, SOURCE_USER = 'root', \
             SOURCE_LOG_FILE = 'primary.000001', SOURCE_LOG_POS = 4, SOURCE_DELAY = {delay}, GET_SOURCE_PUBLIC_KEY = 1"
        ),
    );
    tell(&mut copying, flavor, "START REPLICA");
    (primary, replica, copying)
}

/// A row of this number, written so many seconds ago by the primary's clock.
fn write(primary: &Table, id: u32, tenant: &str, ago: u32) {
    let Table::Server(database) = primary else { unreachable!("it lies on a server") };
    let mut session = database.connect();
    let insert =
        format!("INSERT INTO t_invoice VALUES ({id}, '{tenant}', 'CN', '2025-11-28', 'INV{id}', 3, '{{}}', NOW())");
    session.query_drop(format!("SET timestamp = UNIX_TIMESTAMP() - {ago}")).expect("go back in time");
    session.query_drop(insert).expect("write a row");
}

/// Waits until the replica has so many rows.
fn arrive(replica: &mut Conn, name: &str, rows: u64) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let has = |replica: &mut Conn| {
        replica.query_first::<u64, _>(format!("SELECT COUNT(*) FROM {name}.t_invoice")).ok().flatten()
    };
    while has(replica) != Some(rows) {
        assert!(Instant::now() < deadline, "{rows} rows did not arrive: {:?}", has(replica));
        thread::sleep(Duration::from_millis(50));
    }
}

fn told(finished: &Finished) -> Vec<&str> {
    finished.stderr.lines().filter(|line| line.contains("replica")).collect()
}

#[test]
fn a_replica_hours_behind_loses_nothing_and_its_lag_is_told_to_whoever_may_know() {
    on_every_flavor(|flavor| {
        let (primary, replica, mut copying) = pair(flavor, 4 * HOUR);
        let table = Table::on(&primary);
        let name = table.url().rsplit_once('/').expect("a database").1.to_owned();
        let url = format!("{}/{name}", replica.database().url().rsplit_once('/').expect("a database").0);
        // Applied at once, because their time is past.
        tell(&mut copying, flavor, "STOP REPLICA");
        tell(&mut copying, flavor, "CHANGE REPLICATION SOURCE TO SOURCE_DELAY = 0");
        tell(&mut copying, flavor, "START REPLICA");
        for id in 1..=3 {
            write(&table, id, "1", 5 * HOUR);
        }
        arrive(&mut copying, &name, 3);
        tell(&mut copying, flavor, "STOP REPLICA");
        tell(&mut copying, flavor, &format!("CHANGE REPLICATION SOURCE TO SOURCE_DELAY = {}", 4 * HOUR));
        tell(&mut copying, flavor, "START REPLICA");

        let exporter = Exporter::new(&table).env("INVOICE_EXPORT_SOURCE", &url);
        let incremental = |lang| {
            let margins = ["--safety-lag", "1s", "--overlap", "1m"];
            exporter.run(["run", "--mode", "incremental", "--lang", lang].iter().chain(&margins)).expect(0)
        };
        let quiet = |finished: &Finished| !finished.stderr.contains("has been open");
        assert!(quiet(&incremental("en")), "its own copying is no work that may commit late");
        assert_eq!(exporter.tree().len(), 3);
        let serving = Exporter::new(&table).run(["run", "--dry-run", "--safety-lag", "1s"]).expect(0);
        assert!(quiet(&serving), "nor is handing the copies out: {serving}");

        // Two hours old on the primary, not on the replica before two more have passed.
        write(&table, 4, "1", 2 * HOUR);
        write(&table, 5, "new", 2 * HOUR);
        let shown = || {
            let finished = incremental("en");
            told(&finished).first().map(|line| (*line).to_owned())
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        let line = loop {
            // It knows of the rows when it has read them from the primary.
            match shown() {
                Some(line) => break line,
                None => assert!(Instant::now() < deadline, "no lag is told"),
            }
        };
        assert!(line.starts_with("[INFO]") && line.contains("a replica, 2h "), "{line}");
        assert_eq!(exporter.tree().len(), 3);

        tell(&mut copying, flavor, "STOP REPLICA");
        for level in ["[WARN]", "[INFO]"] {
            let stopped = incremental("en");
            let is_said = |line: &str| line.starts_with(level) && line.contains("stopped");
            assert!(matches!(told(&stopped)[..], [line] if is_said(line)), "{stopped}");
        }
        assert!(incremental("zh").stderr.contains("从库"));
        copying.query_drop("CREATE USER small@'%'").expect("create a user");
        copying.query_drop(format!("GRANT SELECT ON {name}.* TO small@'%'")).expect("grant");
        let small = Exporter::new(&table).env("INVOICE_EXPORT_SOURCE", url.replace("root@", "small@"));
        assert_eq!(told(&small.run(["run", "--mode", "incremental"]).expect(0)), [""; 0]);

        tell(&mut copying, flavor, "CHANGE REPLICATION SOURCE TO SOURCE_DELAY = 0");
        tell(&mut copying, flavor, "START REPLICA");
        arrive(&mut copying, &name, 5);
        let goes_on = incremental("en");
        assert!(
            told(&goes_on).iter().any(|line| line.starts_with("[SUCCESS]") && line.contains("no stopped")),
            "{goes_on}"
        );
        let deadline = Instant::now() + Duration::from_secs(60);
        // A server may be through with the rows a moment before it says so.
        while let Some(line) = shown() {
            assert!(Instant::now() < deadline, "{line}");
        }
        exporter.assert_agrees();
        exporter.assert_state_is_sound();
    });
}
