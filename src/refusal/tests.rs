//! Walks all refusals: both wordings are there, say the same and name a way out.

use std::collections::HashSet;
use std::mem;
use std::time::Duration;

use super::*;
use crate::lang::{Lang, Text};
use crate::run::Kind;

fn holder(purpose: &str) -> Holder {
    let [purpose, host, since] = [purpose, "db7", "2025-11-28T02:00:00Z"].map(str::to_owned);
    Holder { purpose, pid: 7, host, user: Some("ada".to_owned()), since: Some(since) }
}

fn about_the_state() -> Vec<Refusal> {
    let (output, state): (PathBuf, PathBuf) = ("/srv/tree".into(), "/var/state.db".into());
    let [recorded, given] = ["mysql://a/", "sqlite:b"].map(str::to_owned);
    let damages =
        [Damage::TooShort { bytes: 9 }, Damage::NotSqlite, Damage::OtherProgram, Damage::Other(Text::same("page 3"))];
    let damaged = damages.map(|damage| Refusal::StateDamaged { state: state.clone(), damage });
    let rolled_back = [4, 6].map(|tree_run| Refusal::TreeRolledBack { output: output.clone(), tree_run, state_run: 6 });
    let holders = [Some(holder("full")), Some(holder("state set")), None];
    let locked = holders.map(|holder| Refusal::Locked { holder: holder.map(Box::new), lock: "/srv/tree/lock".into() });
    let sources = [None, Some("2025-11-27".into())];
    let older = sources.map(|source| Refusal::SourceOlder { source, exported: "2025-11-28 16:30:00".into() });
    let distrusts = [
        Distrust::Link,
        Distrust::NotAFile,
        Distrust::OtherNames,
        Distrust::Replaced,
        Distrust::MountPoint,
        Distrust::Configuration,
    ];
    let untrusted = distrusts.map(|why| Refusal::Untrusted { path: "/var/lock".into(), why });
    let faults = [2, 1].map(|lines| LegacyFault::WrongLines { lines, numbers: "3, 7".to_owned() });
    let legacy = faults.into_iter().chain([LegacyFault::NoTenant]);
    let legacy = legacy.map(|fault| Refusal::NotLegacyState { file: "/srv/f".into(), fault });
    let faults = [MirrorFault::Tenant("a|b".to_owned()), MirrorFault::Unwritten(Text::same("errno 13"))];
    let mirrored = faults.map(|fault| Refusal::NotMirrored { file: "/srv/f".into(), fault });
    let others = [
        Refusal::Cancelled { signal: 15 },
        Refusal::ScriptLocked { folder: "/srv/tree/.export.lock".into(), age: Duration::from_secs(90) },
        Refusal::StateMissing { state: state.clone() },
        Refusal::NoState { state: state.clone() },
        Refusal::TreeWithoutState { output: output.clone(), state: state.clone() },
        Refusal::BackupUnusable { backup: state.clone(), damage: Damage::NotSqlite },
        Refusal::StateNewer { state: state.clone(), version: 9, known: 1 },
        Refusal::OtherSource { state: state.clone(), recorded, given },
        Refusal::MarkMissing { output: output.clone(), state: state.clone() },
        Refusal::MarkForeign { output: output.clone(), state: state.clone() },
        Refusal::NetworkFileSystem { path: state.clone() },
        Refusal::PathTooLong { path: state.clone(), length: 500, most: 431 },
        Refusal::NamesFolded { output },
        Refusal::NotOwner { path: state },
        Refusal::GoesBack { file: "/srv/f".into(), tenants: 2, names: "1, 10".to_owned() },
        Refusal::GoesBack { file: "/srv/f".into(), tenants: 1, names: "10".to_owned() },
    ];
    let all = others.into_iter().chain(damaged).chain(rolled_back).chain(locked).chain(older);
    all.chain(untrusted).chain(legacy).chain(mirrored).collect()
}

fn about_the_source() -> Vec<Refusal> {
    let [table, column, option] = ["t_invoice", "fid2", "password"];
    let obstacles = [
        ConnectErrorKind::Unreachable,
        ConnectErrorKind::Login,
        ConnectErrorKind::LoginInClear(KeyUse::None),
        ConnectErrorKind::LoginInClear(KeyUse::Named),
        ConnectErrorKind::TlsRequired,
        ConnectErrorKind::PasswordInTheClear,
        ConnectErrorKind::ServerKeyUnusable,
        ConnectErrorKind::LoginUnknown,
        ConnectErrorKind::Database,
        ConnectErrorKind::Full,
        ConnectErrorKind::NoTls,
        ConnectErrorKind::Certificate,
        ConnectErrorKind::TrustedUnreadable,
    ];
    let source = "mysql://db:3306/shop";
    let unconnected = obstacles.map(|obstacle| Refusal::CannotConnect {
        source: source.to_owned(),
        obstacle,
        detail: Text::same("ERROR 7"),
    });
    let troubles = [
        OptionFileTrouble::WritableByAll,
        OptionFileTrouble::Include { line: 3 },
        OptionFileTrouble::NoGroup { line: 4 },
        OptionFileTrouble::OpenGroup { line: 5 },
        OptionFileTrouble::NoValue { line: 6, option },
        OptionFileTrouble::NotUtf8 { line: 7, option },
    ];
    let option_files = troubles.map(|trouble| Refusal::OptionFile { file: "/etc/my.cnf".into(), trouble });
    let addresses = [
        AddressFault::Form,
        AddressFault::Control,
        AddressFault::NotEncoded,
        AddressFault::FileNotEncoded,
        AddressFault::NotUtf8,
        AddressFault::User,
        AddressFault::Host,
        AddressFault::Port,
        AddressFault::NoDatabase,
        AddressFault::Database,
        AddressFault::Query,
    ];
    let addresses = addresses.map(|fault| Refusal::Usage(fault.message()));
    let (table, column, detail) = (table.to_owned(), column.to_owned(), "ERROR 1142".to_owned());
    let others = [
        Refusal::UnknownTenant("acme".to_owned()),
        Refusal::TenantNotInState("acme".to_owned()),
        Refusal::ConnectionLost { source: source.to_owned(), detail: Text::same(&detail) },
        Refusal::Overtime { setting: "max_statement_time", detail: detail.clone() },
        Refusal::TableMissing { table: table.clone() },
        Refusal::ColumnsMissing { table: table.clone(), columns: column.clone() },
        Refusal::TableUnreadable { table: table.clone(), detail: detail.clone() },
        Refusal::TableChanged { table, column },
        Refusal::FewHandles { handles: 20, inherited: 3, least: 64 },
        Refusal::NoThread { detail: detail.clone() },
        Refusal::Panicked { place: "src/a.rs:1:2".to_owned(), detail },
    ];
    others.into_iter().chain(unconnected).chain(option_files).chain(addresses).collect()
}

fn every_refusal() -> Vec<Refusal> {
    about_the_state().into_iter().chain(about_the_source()).collect()
}

/// What must be in both wordings: paths, options, commands, numbers and names, which are the
/// runs of ASCII that hold something else than the letters of a sentence.
fn facts(wording: &str) -> Vec<&str> {
    let pieces = wording.split(|c: char| !c.is_ascii() || c.is_whitespace() || ":;?,()`'\"".contains(c));
    pieces.filter(|piece| piece.starts_with(['-', '/', '.']) || piece.chars().any(|c| c.is_ascii_digit())).collect()
}

fn is_chinese(text: &str) -> bool {
    text.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c))
}

/// How many variants an enum has, by its source text.
fn variants(source: &str, name: &str) -> usize {
    let file = syn::parse_file(source).unwrap();
    let count = file.items.iter().find_map(|item| match item {
        syn::Item::Enum(found) if found.ident == name => Some(found.variants.len()),
        _ => None,
    });
    count.unwrap_or_else(|| panic!("no enum {name}"))
}

#[test]
fn the_list_holds_every_refusal() {
    let kinds: HashSet<_> = every_refusal().iter().map(mem::discriminant).collect();
    assert_eq!(kinds.len(), variants(include_str!("../refusal.rs"), "Refusal"));
}

#[test]
fn every_refusal_is_worded_in_both_languages_with_the_same_facts() {
    for refusal in every_refusal() {
        let Message { what, hint } = refusal.message();
        for text in std::iter::once(&what).chain(&hint) {
            let [english, chinese] = [Lang::En, Lang::Zh].map(|lang| text.in_lang(lang));
            assert!(english.is_ascii(), "{english}");
            // A message of the server alone is the same in both.
            let is_only_detail = english == "ERROR 7";
            assert!(is_chinese(chinese) || is_only_detail, "{chinese}");
            assert!(!chinese.contains(['(', ')']), "half-width parentheses: {chinese}");
            // Durations are worded in the language itself.
            let lost = |from: &str, to: &str| {
                let mut facts = facts(from).into_iter().filter(|fact| !matches!(*fact, "1m" | "30s"));
                facts.find(|fact| !to.contains(fact)).map(str::to_owned)
            };
            assert_eq!(lost(english, chinese), None, "{chinese}");
        }
    }
}

#[test]
fn every_refusal_has_a_hint_in_both_languages() {
    for refusal in every_refusal() {
        let message = refusal.message();
        let hint = message.hint.as_ref().unwrap_or_else(|| panic!("{message} names no remedy"));
        assert_ne!(hint.in_lang(Lang::En), hint.in_lang(Lang::Zh));
        assert!(hint.in_lang(Lang::Zh).contains('请'), "{}", hint.in_lang(Lang::Zh));
        let [what, hint] = [&message.what, hint].map(|text| text.in_lang(Lang::En));
        assert_eq!(refusal.to_string(), format!("{what}; {hint}"));
    }
}

#[test]
fn the_holder_of_the_lock_is_named_in_chinese() {
    let text = |holder: Option<&Holder>| Holder::text(holder).in_lang(Lang::Zh).to_owned();
    assert_eq!(text(Some(&holder("full"))), "全量导出，pid 7，主机 db7，用户 ada，开始于 2025-11-28T02:00:00Z");
    assert!(text(Some(&holder("state set"))).starts_with("state set，"));
    assert!(is_chinese(&text(None)));
}

#[test]
fn every_trouble_is_worded_in_both_languages() {
    let (path, detail) = ("1/CN/a.json".to_owned(), "errno 13".to_owned());
    for trouble in [
        Trouble::NotInPlace { path: path.clone(), detail: Text::same(detail.clone()).into() },
        Trouble::NotRemoved { path: path.clone(), detail: detail.clone() },
        Trouble::NotSeen { path, detail: Text::same(detail).into() },
        Trouble::Rejects { invoices: 7, kind: Kind::Full },
    ] {
        let Message { what, .. } = trouble.message();
        let [english, chinese] = [Lang::En, Lang::Zh].map(|lang| what.in_lang(lang));
        assert!(is_chinese(chinese) && facts(english).iter().all(|fact| chinese.contains(fact)), "{chinese}");
    }
}
