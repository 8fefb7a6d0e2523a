//! `demo`: makes an embedded sample source and exports it with the ordinary code: completely, then
//! what changed. A newcomer sees real files without a server.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};

use crate::cli::Demo;
use crate::export::plan::StatePolicy;
use crate::export::{self, Backups, Mirror, Mode, Order, Rejects};
use crate::fs::private::PRIVATE;
use crate::report::Reporter;
use crate::run::Kind;
use crate::source::{Access, Address, TableNames, Tls, sample};
use crate::tree::walk;

/// Files of each tenant that are shown.
const SHOWN: usize = 2;

pub(super) fn run(args: &Demo, reporter: &Reporter) -> anyhow::Result<u8> {
    let folder = &args.folder;
    if folder.exists() {
        bail!("{} is already there; name another folder, or remove it: rm -r '{}'", folder.display(), folder.display());
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let database = folder.join("source.db");
    let started = super::now();
    let ago = |minutes| (started - chrono::TimeDelta::minutes(minutes)).format("%Y-%m-%d %H:%M:%S").to_string();
    sample::create(&database, &ago(60))?;
    let output = folder.join("context");
    let say = |text: &str| reporter.line(text);

    say(&format!("# a sample source: {}", database.display()));
    say(&format!("$ {}", command(&database, &output, "full")));
    export::run(&order(&database, &output, Kind::Full), &mut |event| reporter.event(&event))?;

    let changes = sample::change(&database, &ago(10))?;
    say("");
    say(&format!(
        "# now {} invoices are updated, {} are new, {} moved to another date, {} spoiled (no JSON any more)",
        changes.updated, changes.inserted, changes.moved, changes.spoiled
    ));
    say(&format!("$ {}", command(&database, &output, "incremental")));
    export::run(&order(&database, &output, Kind::Incremental), &mut |event| reporter.event(&event))?;

    say("");
    say(&format!("# the tree {} holds, among others", output.display()));
    let mut shown: BTreeMap<PathBuf, usize> = BTreeMap::new();
    for path in walk::files(&output) {
        let path = path?;
        let tenant = path.iter().take(1).collect();
        let count = shown.entry(tenant).or_default();
        *count += 1;
        if *count <= SHOWN {
            say(&path.display().to_string());
        }
    }
    for (tenant, count) in shown {
        say(&format!("# {count} files of tenant {}", tenant.display()));
    }
    say("");
    say(&format!("# look at it:  find {} -name '*.json' | head", output.display()));
    say("# the spoiled invoice keeps its last good file and is read again by every run until it is mended");
    say(&format!("# away with it: rm -r {}", folder.display()));
    Ok(0)
}

fn command(database: &Path, output: &Path, mode: &str) -> String {
    format!("invoice-export run --source sqlite:{} --output {} --mode {mode}", database.display(), output.display())
}

fn order(database: &Path, output: &Path, kind: Kind) -> Order {
    Order {
        kind,
        mode: Mode::Export,
        tenants: Vec::new(),
        since: None,
        until: None,
        access: Access {
            url: Address::File(database.display().to_string()),
            password: None,
            names: TableNames::default(),
            time_zone: None,
            tls: Tls::default(),
            read_timeout: Duration::ZERO,
            max_document: 256 << 20,
        },
        output: output.to_path_buf(),
        state: output.join(PRIVATE).join("state.db"),
        policy: StatePolicy::Ordinary,
        safety_lag: Duration::from_secs(300),
        overlap: Duration::from_secs(3600),
        lock_wait: Duration::ZERO,
        retry_for: Duration::ZERO,
        writers: 2,
        durability: None,
        rejects: Rejects::Kept,
        backups: Backups { every: None, keep: 0 },
        mirror: Mirror::Off,
        starter: super::starter(),
        clocks: super::OWN_CLOCKS,
        watch: super::signals::watch,
    }
}
