//! Realistic invoices, made once by scripts/peers/sample.py and kept for the next test run.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

const SCRIPT: &str = include_str!("../../../scripts/peers/sample.py");

/// A file of rows for LOAD DATA.
pub(crate) struct Sample {
    file: PathBuf,
}

impl Sample {
    /// `tenants` with their weights, as in `1:0.6,10:0.3,89:0.1`.
    pub(crate) fn new(rows: u32, seed: u32, tenants: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        // The script is part of the name, so that a changed script makes a new file.
        let digest = Sha256::digest(format!("{tenants}\n{SCRIPT}"));
        let name: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        let file = folder.join(format!("sample-{rows}-{seed}-{name}.tsv"));
        if !file.exists() {
            // Readable by all: root and an ordinary user may take turns in one checkout.
            let unfinished = tempfile::Builder::new()
                .permissions(Permissions::from_mode(0o644))
                .tempfile_in(folder)
                .expect("make a file for the sample rows");
            generate(rows, seed, tenants, unfinished.path());
            unfinished.persist(&file).expect("keep the sample rows");
        }
        Self { file }
    }

    pub(crate) fn file(&self) -> &Path {
        &self.file
    }
}

/// The documented table as a server wants it: the statement that the script prints.
pub(crate) fn server_table() -> &'static str {
    let start = SCRIPT.find("CREATE TABLE").expect("the script prints the table");
    let end = SCRIPT[start..].find(';').expect("the statement ends");
    &SCRIPT[start..start + end]
}

fn generate(rows: u32, seed: u32, tenants: &str, file: &Path) {
    let done = Command::new("python3")
        .args(["-c", SCRIPT, &rows.to_string(), &seed.to_string(), tenants])
        .arg(file)
        .output()
        .expect("the tests need python3: `apt-get install python3`, or run scripts/test");
    assert!(done.status.success(), "sample.py failed: {}", String::from_utf8_lossy(&done.stderr));
}
