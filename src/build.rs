//! Makes the text of `--version`: the version and, in release builds, the commit with its day. A source
//! tree without git, or one inside the repository of another project, has the version alone.

#![expect(clippy::disallowed_methods, reason = "Cargo tells a build script by the environment what it builds")]

use std::path::Path;
use std::process::Command;

fn main() {
    let variable = |name| std::env::var(name).unwrap_or_default();
    println!("cargo::rerun-if-changed=src");
    // A developer's build would be made anew after every commit.
    let commit = if variable("PROFILE") == "release" { watched_commit() } else { None };
    let commit = commit.map(|commit| format!(" ({commit})")).unwrap_or_default();
    println!("cargo::rustc-env=INVOICE_EXPORT_VERSION={}{commit}", variable("CARGO_PKG_VERSION"));
}

/// The commit, which is asked for again when HEAD moves.
fn watched_commit() -> Option<String> {
    // The reflog of HEAD grows with every commit and every checkout.
    if let Some(path) = git(&["rev-parse", "--git-path", "logs/HEAD"]).filter(|path| Path::new(path).exists()) {
        println!("cargo::rerun-if-changed={path}");
    }
    commit()
}

/// Hash and day of the commit, with a `+` behind the hash if files differ from it.
fn commit() -> Option<String> {
    let root = git(&["rev-parse", "--show-toplevel"])?;
    let here = std::env::var("CARGO_MANIFEST_DIR").ok()?;
    if Path::new(&root).canonicalize().ok()? != Path::new(&here).canonicalize().ok()? {
        return None;
    }
    let shown = git(&["show", "--no-patch", "--date=short", "--format=%h %cd", "HEAD"])?;
    let (hash, day) = shown.split_once(' ')?;
    let changes = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(format!("{hash}{} {day}", if changes.is_empty() { "" } else { "+" }))
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim_end().to_owned())
}
