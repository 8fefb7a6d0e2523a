//! The configuration file: its keys are the long flags; a flag comes before a variable, a variable before the file; what
//! is wrong in it is named with its line; and no other user can have written it.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::support::exporter::{Exporter, Finished};
use crate::support::table::Table;

/// Writes the file that `--config` names.
fn file(exporter: &Exporter<'_>, content: &str) -> PathBuf {
    let path = exporter.home().join("settings.toml");
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    path
}

/// Runs a command with a configuration.
fn with_file(exporter: &Exporter<'_>, content: &str, args: &[&str]) -> Finished {
    let path = file(exporter, content);
    exporter.run([args, &["--config", path.to_str().unwrap()]].concat())
}

/// What `config show` says of a setting: its value, and where that comes from.
fn shown(finished: &Finished, name: &str) -> (String, String) {
    let rows = finished.json();
    let row =
        rows.as_array().unwrap().iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("{name}: {rows}"));
    let text = |field: &str| match &row[field] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    (text("value"), text("origin"))
}

#[test]
fn flags_beat_variables_variables_the_file_and_the_file_defaults() {
    let table = Table::embedded();
    let exporter = Exporter::new(&table).env("INVOICE_EXPORT_WRITERS", "3");
    let content = "# ours\nformat = \"json\"\nwriters = 5\noverlap = \"2h\"\nlang = \"zh\"\nstrict = true\n";
    let finished = with_file(&exporter, content, &["config", "show", "--lang", "en"]).expect(0);
    let path = exporter.home().join("settings.toml");
    let line = |number: u32| format!("{}, line {number}", path.display());
    assert_eq!(shown(&finished, "lang"), ("en".to_owned(), "flag".to_owned()));
    assert_eq!(shown(&finished, "writers"), ("3".to_owned(), "INVOICE_EXPORT_WRITERS".to_owned()));
    assert_eq!(shown(&finished, "overlap"), ("2h".to_owned(), line(4)));
    assert_eq!(shown(&finished, "strict"), ("true".to_owned(), line(6)));
    assert_eq!(shown(&finished, "safety-lag"), ("5m".to_owned(), "default".to_owned()));
}

#[test]
fn a_run_needs_nothing_but_its_mode_beside_the_file() {
    let table = Table::embedded();
    let exporter = Exporter::new(&table);
    let output = exporter.home().join("elsewhere");
    let source = exporter.command(["x"]);
    let url =
        source.get_envs().find(|(name, _)| *name == "INVOICE_EXPORT_SOURCE").and_then(|(_, value)| value).unwrap();
    let content = format!(
        "source = {:?}\noutput = {:?}\nformat = \"json\"\n[columns]\ndate = \"fissue_date\"\n",
        url.to_str().unwrap(),
        output.to_str().unwrap()
    );
    let path = file(&exporter, &content);
    let mut command = Command::new(env!("CARGO_BIN_EXE_invoice-export"));
    command.args(["run", "--mode", "incremental"]).env_clear().env("INVOICE_EXPORT_CONFIG", &path);
    let done = crate::support::exporter::Running::new(&mut command).wait().expect(0);
    assert_eq!(done.json()["kind"], "incremental", "{done}");
    assert!(output.join(".export_state/state.db").exists());
}

#[test]
fn what_is_wrong_in_a_file_is_named_with_its_line_and_a_value_that_would_do() {
    let table = Table::embedded();
    let exporter = Exporter::new(&table);
    let wrong: [(&str, &[&str]); 15] = [
        ("source = 3", &["line 1", "mysql://"]),
        ("source = \"mysql//h/d\"", &["line 1", "mysql://"]),
        ("source = \"sqlite:a.db\"", &["line 1", "whole path"]),
        ("\noverlapp = \"1h\"", &["line 2", "overlapp", "did you mean overlap?"]),
        ("overlap = \"soon\"", &["line 1", "overlap", "\"soon\"", "1h"]),
        ("writers = 900", &["line 1", "writers", "64"]),
        ("strict = \"yes\"", &["line 1", "strict", "true or false"]),
        ("overlap = true", &["line 1", "overlap", "in quotes"]),
        ("fresh = true", &["line 1", "--fresh", "command line"]),
        ("tenant = [\"1\"]", &["line 1"]),
        ("output = \"context\"", &["line 1", "output", "whole path"]),
        ("source = \"mysql://u:Hush1@h/d\"", &["line 1", "password"]),
        ("[columns]\nprice = \"x\"", &["line 2", "price-column"]),
        ("date-column = \"a\"\n[columns]\ndate = \"b\"", &["line 3", "date-column", "twice"]),
        ("a = \n", &["line 1", "TOML"]),
    ];
    for (content, words) in wrong {
        let refused = with_file(&exporter, content, &["status"]).expect(2);
        for word in words {
            assert!(refused.stderr.contains(word), "{content:?} lacks {word:?}: {refused}");
        }
        assert!(!refused.stderr.contains("Hush1"), "{refused}");
        with_file(&exporter, content, &["config", "check"]).expect(2);
    }
}

#[test]
fn a_file_that_another_user_could_have_written_is_refused() {
    let table = Table::embedded();
    let exporter = Exporter::new(&table);
    let path = file(&exporter, "writers = 3\n");
    let status = || exporter.run(["config", "check", "--config", path.to_str().unwrap()]);
    status().expect(0);
    fs::set_permissions(&path, Permissions::from_mode(0o660)).unwrap();
    assert!(status().expect(5).stderr.contains("another user can change"), "{}", status());
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    chown(&path, Some(4321), None).unwrap();
    status().expect(5);
    chown(&path, Some(0), None).unwrap();
    fs::set_permissions(exporter.home(), Permissions::from_mode(0o777)).unwrap();
    status().expect(5);
    fs::set_permissions(exporter.home(), Permissions::from_mode(0o700)).unwrap();
    status().expect(0);
}

#[test]
fn a_named_file_that_is_missing_is_refused_and_help_comes_all_the_same() {
    let table = Table::embedded();
    let exporter = Exporter::new(&table);
    assert!(exporter.run(["status", "--config", "/nowhere.toml"]).expect(2).stderr.contains("/nowhere.toml"));
    let help = exporter.run(["run", "--help", "--config", "/nowhere.toml"]).expect(0);
    assert!(help.stdout.contains("--overlap"), "{help}");
    let none = exporter.run(["config", "check"]).expect(2);
    assert!(none.stderr.contains("config init"), "{none}");
}

#[test]
fn the_file_of_the_user_is_found_and_left_alone_on_demand() {
    let table = Table::embedded();
    let exporter = Exporter::new(&table);
    let exporter = {
        let home = exporter.home().to_owned();
        exporter.env("HOME", home)
    };
    let folder = exporter.home().join(".config/invoice-export");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("config.toml"), "writers = 7\n").unwrap();
    let show = |args: &[&str]| {
        shown(&exporter.run([&["config", "show", "--format", "json"], args].concat()).expect(0), "writers").0
    };
    assert_eq!(show(&[]), "7");
    assert_eq!(show(&["--no-config"]), "2");
    fs::write(folder.join("config.toml"), "writer = 7\n").unwrap();
    exporter.run(["config", "show", "--no-config"]).expect(0);
    exporter.run(["config", "show"]).expect(2);
    let new = exporter.home().join("new.toml");
    let begun = exporter.run(["config", "init", new.to_str().unwrap(), "-q"]).expect(0);
    assert_eq!((begun.stdout.as_str(), begun.stderr.as_str(), new.exists()), ("", "", true));
}

#[test]
fn a_new_file_holds_every_setting_as_a_comment_and_each_can_be_set() {
    let table = Table::embedded();
    let exporter = Exporter::new(&table);
    let path = exporter.home().join("new/config.toml");
    for lang in ["en", "zh"] {
        let init = ["config", "init", path.to_str().unwrap(), "--lang", lang];
        exporter.run(init).expect(0);
        let check = ["config", "check", "--config", path.to_str().unwrap()];
        exporter.run(check).expect(0);
        exporter.run(init).expect(2);
        let written = fs::read_to_string(&path).unwrap();
        let shown = exporter.run(["config", "show", "--format", "json"]).expect(0);
        for row in shown.json().as_array().unwrap() {
            let name = row["name"].as_str().unwrap();
            let key = name.strip_suffix("-column").unwrap_or(name);
            assert!(written.contains(&format!("\n# {key} = ")), "{key}: {written}");
        }
        // Each line that has a default of its own is right without its mark.
        let set = written.lines().filter_map(|line| {
            let line = line.strip_prefix("# ")?;
            (line == "[columns]" || line.contains(" = ") && !line.ends_with("\"\"")).then_some(line)
        });
        let set: String = set.map(|line| format!("{line}\n")).collect();
        fs::write(&path, set.replace("\"../context\"", "\"/srv/context\"")).unwrap();
        exporter.run(check).expect(0);
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn the_variables_of_the_script_come_before_the_file_too() {
    let table = Table::embedded();
    let exporter = Exporter::new(&table).env("EXPORT_MODE", "incremental").env("DRY_RUN", "false");
    let content = "mode = \"full\"\ndry-run = true\nformat = \"json\"\n";
    let shown_mode = shown(&with_file(&exporter, content, &["config", "show"]).expect(0), "mode");
    assert_eq!(shown_mode, ("incremental".to_owned(), "EXPORT_MODE".to_owned()));
    let run = with_file(&exporter, content, &["run"]).expect(0).json();
    assert_eq!((&run["kind"], &run["dry_run"]), (&"incremental".into(), &false.into()));
}

#[test]
fn the_language_of_the_file_is_that_of_a_wrong_command_line_too() {
    let table = Table::embedded();
    let exporter = Exporter::new(&table);
    let refused = with_file(&exporter, "lang = \"zh\"\n", &["status", "--rum"]).expect(2);
    assert!(refused.stderr.contains("用法"), "{refused}");
    let loud = with_file(&exporter, "quiet = true\n", &["run", "-v"]).expect(0);
    assert!(loud.stderr.contains("[INFO]"), "{loud}");
    let quiet = with_file(&exporter, "quiet = true\n", &["run"]).expect(0);
    assert!(!quiet.stderr.contains("[INFO]"), "{quiet}");
}
