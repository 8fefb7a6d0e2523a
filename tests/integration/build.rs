//! What `--version` says, and the build script that makes it: compiled and run by itself, in trees with
//! git, without it, and inside the repository of another project.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// The build script of this tree, ready to be run anywhere.
struct BuildScript {
    folder: TempDir,
}

impl BuildScript {
    fn compiled() -> Self {
        let script = Self { folder: tempfile::tempdir().unwrap() };
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/build.rs");
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let status = Command::new(rustc).args(["--edition", "2024", "-o"]).arg(script.program()).arg(source).status();
        assert!(status.unwrap().success());
        script
    }

    fn program(&self) -> PathBuf {
        self.folder.path().join("build-script")
    }

    /// The version that it gives a tree.
    fn version_of(&self, tree: &Path) -> String {
        let mut script = Command::new(self.program());
        script.current_dir(tree).env("CARGO_MANIFEST_DIR", tree).env("CARGO_PKG_VERSION", "1.2.3");
        let output = script.env("PROFILE", "release").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8(output.stdout).unwrap();
        let version = said.lines().find_map(|line| line.strip_prefix("cargo::rustc-env=INVOICE_EXPORT_VERSION="));
        version.unwrap().to_owned()
    }
}

fn git(tree: &Path, args: &[&str]) -> String {
    let mut git = Command::new("git");
    git.current_dir(tree).args(["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]).args(args);
    let output = git.env("GIT_COMMITTER_DATE", "2025-11-28T12:00:00Z").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn the_version_names_commit_and_day_and_whether_files_differ_from_it() {
    let (script, tree) = (BuildScript::compiled(), tempfile::tempdir().unwrap());
    fs::write(tree.path().join("file"), "one").unwrap();
    git(tree.path(), &["init", "--quiet"]);
    git(tree.path(), &["add", "file"]);
    git(tree.path(), &["commit", "--quiet", "--message", "one"]);
    let hash = git(tree.path(), &["rev-parse", "--short", "HEAD"]);
    assert_eq!(script.version_of(tree.path()), format!("1.2.3 ({hash} 2025-11-28)"));
    fs::write(tree.path().join("file"), "two").unwrap();
    assert_eq!(script.version_of(tree.path()), format!("1.2.3 ({hash}+ 2025-11-28)"));
}

#[test]
fn a_tree_without_git_or_inside_another_repository_has_the_version_alone() {
    let (script, tree) = (BuildScript::compiled(), tempfile::tempdir().unwrap());
    assert_eq!(script.version_of(tree.path()), "1.2.3");
    git(tree.path(), &["init", "--quiet"]);
    git(tree.path(), &["commit", "--quiet", "--allow-empty", "--message", "another project"]);
    let vendored = tree.path().join("vendored");
    fs::create_dir(&vendored).unwrap();
    assert_eq!(script.version_of(&vendored), "1.2.3");
}

#[test]
fn the_program_says_which_build_it_is() {
    let output = Command::new(env!("CARGO_BIN_EXE_invoice-export")).arg("--version").output().unwrap();
    assert!(output.status.success());
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        format!("invoice-export {}\n", env!("INVOICE_EXPORT_VERSION"))
    );
}
