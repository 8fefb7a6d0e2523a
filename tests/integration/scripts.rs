//! The scripts of the repository: they install what building takes, find the program wherever Cargo has put it, and draw
//! the pictures of the documents.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::support::exporter::{Finished, Running};

/// What Cargo says of a build script and of the program.
const CARGO: &str = r#"cat <<END
{"reason":"compiler-artifact","target":{"name":"build-script-build"},"filenames":["/elsewhere/build"],"executable":null}
{"reason":"compiler-artifact","target":{"name":"invoice-export"},"executable":"PROGRAM","fresh":true}
{"reason":"build-finished","success":true}
END"#;

/// A folder of programs that stand in the place of those that build and install.
struct Programs(TempDir);

impl Programs {
    fn new() -> Self {
        let programs = Self(tempfile::tempdir().unwrap());
        let built = programs.path().join("elsewhere");
        programs.add("elsewhere", concat!("echo called\nexec ", env!("CARGO_BIN_EXE_invoice-export"), " \"$@\""));
        programs.add("cargo", &CARGO.replace("PROGRAM", built.to_str().unwrap()));
        programs
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn add(&self, name: &str, script: &str) {
        let file = self.path().join(name);
        fs::write(&file, format!("#!/bin/bash\n{script}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Runs the demo with these programs before others.
    fn demo(&self, path: &str) -> Finished {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/demo");
        let mut demo = Command::new(script);
        demo.arg("made").current_dir(self.path()).env_clear().env("HOME", self.path());
        demo.env("PATH", path.replace("STUBS", self.path().to_str().unwrap()));
        Running::new(&mut demo).wait()
    }
}

#[test]
fn a_demo_finds_the_program_where_cargo_says_that_it_is() {
    let programs = Programs::new();
    let others = std::env::var_os("PATH").unwrap().into_string().unwrap();
    let done = programs.demo(&format!("STUBS:{others}")).expect(0);
    assert!(done.stdout.starts_with("called\n") && done.stdout.contains("full export complete!"), "{done}");
    assert!(programs.path().join("made/context").is_dir(), "{done}");
}

#[test]
fn a_demo_installs_the_compiler_that_a_bare_machine_lacks() {
    let programs = Programs::new();
    for tool in ["bash", "cat", "dirname", "env", "sed"] {
        programs.add(tool, &format!("exec /usr/bin/{tool} \"$@\""));
    }
    // No service is touched, and nothing is installed but in this folder.
    for tool in ["install", "rm"] {
        programs.add(tool, "exit 0");
    }
    programs.add("id", "echo 0");
    programs.add("apt-get", "echo \"$@\" >>asked");
    let done = programs.demo("STUBS").expect(0);
    assert!(done.stdout.starts_with("called\n") && done.stdout.contains("full export complete!"), "{done}");
    let asked = fs::read_to_string(programs.path().join("asked")).unwrap();
    let install = asked.lines().find(|line| line.starts_with("install ")).unwrap_or_else(|| panic!("{asked}"));
    assert!(["gcc", "libc6-dev", "make"].iter().all(|package| install.contains(package)), "{asked}");
    assert!(done.stderr.contains("installing gcc libc6-dev make"), "{done}");
}

#[test]
fn the_pictures_of_the_documents_are_what_their_script_draws_today() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let drawn = tempfile::tempdir().unwrap();
    Running::new(Command::new(root.join("scripts/pictures")).arg(drawn.path())).wait().expect(0);
    let names = |folder: &Path| {
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let kept = root.join("docs/pictures");
    assert_eq!(names(&kept), names(drawn.path()));
    for name in names(&kept) {
        let [old, new] = [&kept, drawn.path()].map(|folder| fs::read_to_string(folder.join(&name)).unwrap());
        assert!(old == new, "{} is stale: run scripts/pictures", name.display());
    }
}
