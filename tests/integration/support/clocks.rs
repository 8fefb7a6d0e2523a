//! Clocks that a test sets: an embedded source's, and the exporter's own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use rustix::time::{ClockId, clock_gettime};

use super::Exporter;
use super::state::{ask, meddle};

const CODE: &str = include_str!("clocks.c");

impl Exporter<'_> {
    /// Whatever starts from now on sees these times stand still, in seconds since 1970. What only
    /// measures how long something takes is left as it is. By the time since the machine was started as much
    /// has passed as by the exporter's own clock.
    pub(crate) fn set_clocks(&mut self, source: i64, own: i64) {
        self.show_clocks(source, own);
        self.let_pass(&format!("{own} * 1000 - own_ms"));
    }

    /// The same where the clocks were set: this many seconds have passed since the last run.
    pub(crate) fn set_clocks_though(&mut self, source: i64, own: i64, passed: i64) {
        self.show_clocks(source, own);
        self.let_pass(&format!("{passed} * 1000"));
    }

    /// Nothing but the kernel can say how long a machine has been up, so the state's record of the last run is
    /// moved. A log that a killed run left beside the state is not touched.
    fn let_pass(&self, ms: &str) {
        let state = self.state();
        if state.exists() && !state.with_extension("db-wal").exists() {
            let since = clock_gettime(ClockId::Boottime);
            let now = since.tv_sec * 1000 + since.tv_nsec / 1_000_000;
            if !ask(&state, "SELECT 1 FROM pragma_table_info('meta') WHERE name = 'uptime_ms'").is_empty() {
                meddle(&state, &format!("UPDATE meta SET uptime_ms = {now} - ({ms}) WHERE uptime_ms IS NOT NULL"));
            }
        }
    }

    fn show_clocks(&mut self, source: i64, own: i64) {
        self.set("LD_PRELOAD", library());
        self.set("TEST_SOURCE_CLOCK", source.to_string());
        self.set("TEST_OWN_CLOCK", own.to_string());
    }
}

fn library() -> &'static Path {
    static LIBRARY: LazyLock<PathBuf> = LazyLock::new(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let built = tempfile::Builder::new().suffix(".so").tempfile_in(folder).expect("make a file for the clocks");
        let code = built.path().with_extension("c");
        std::fs::write(&code, CODE).expect("write the code of the clocks");
        let done = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .args([built.path(), &code])
            .output()
            .expect("the tests need cc: `apt-get install gcc libc6-dev`, or run scripts/test");
        assert!(done.status.success(), "the clocks: {}", String::from_utf8_lossy(&done.stderr));
        std::fs::remove_file(code).expect("remove the code of the clocks");
        // One for all test runs: a library cannot be replaced while somebody uses it, a name can.
        let library = folder.join("clocks.so");
        built.persist(&library).expect("keep the clocks");
        library
    });
    &LIBRARY
}
