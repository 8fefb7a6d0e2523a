//! Shows that the checks of documents are able to fail: each fault that a document may have is put into one.

use serde_json::json;

use super::comparing::{difference, other_fields, rewritten};
use super::languages::{dead_links, disagreements, half_width};
use super::markdown::Document;
use super::{carry_out, faults, steps};

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

fn document(text: &str) -> Document {
    Document::parse("docs/operations.md", &text.replace('~', "```"))
}

#[test]
fn a_wrong_option_exit_output_or_field_is_found_out() {
    let wrong = document(
        "# Wrong\n~sh\nexport INVOICE_EXPORT_OUTPUT=/srv/context\ninvoice-export history --no-such-option\n~\n\
         ~sh\ninvoice-export history 1   # exit 6\n~\n\
         ~sh\ninvoice-export history last --format json\n~\n~json\n{\"identity\": 1}\n~\n\
         ~sh\ninvoice-export history --limit 1\n~\n~text\nid  kind\n99  full\n~\n\
         ~cron\n0 * * * *  /usr/local/bin/invoice-export history --no-such-option\n~\n\
         ~sql\nSELECT * FROM no_such_table;\n~\n\
         ~sql state\nSELECT * FROM no_such_table;\n~\n\
         ~sh\nexit 0\n~\n~sh\ntrue\n~\n",
    );
    let (steps, malformed) = steps::steps(&wrong);
    assert_eq!(malformed, [""; 0]);
    let outcomes = carry_out(&wrong, &steps);
    let found: Vec<_> = steps.iter().zip(&outcomes).flat_map(|(step, outcome)| faults(&wrong, step, outcome)).collect();
    let wanted = [
        ("md:4:", "exit 2 instead of [0]"),
        ("md:7:", "exit 0 instead of [6]"),
        ("md:10:", "other fields at .identity"),
        ("md:16:", "differs in the line"),
        ("md:23:", "exit 2 instead of [0]"),
        ("md:26:", "exit 1 instead of [0]"),
        ("md:29:", "exit 1 instead of [0]"),
        ("md:32:", "was not reached"),
        ("md:35:", "was not reached"),
    ];
    assert_eq!(found.len(), wanted.len(), "{found:#?}");
    for (found, (line, words)) in found.iter().zip(wanted) {
        assert!(found.contains(line) && found.contains(words), "{line} {words}: {found}");
    }
}

#[test]
fn a_block_of_an_unknown_kind_and_an_output_without_its_command_are_found_out() {
    let (_, found) = steps::steps(&document(
        "# A\n~console\n$ ls\n~\n~sh\nls\n~\n# B\n~text\nfile\n~\n~sh\nscripts/test\n~\n~text\nok\n~\n",
    ));
    assert!(found.len() == 3 && found[2].contains("is not run"), "{found:?}");
    assert!(
        found[0].contains("unknown kind \"console\"") && found[1].contains("no command of this section"),
        "{found:?}"
    );
}

#[test]
fn exit_codes_are_announced_by_comments() {
    let text = "# A\n~sh\na # exit 6\nb # exit 6: lags\nc # exit 6 if one lags\nd # one lags: exit 6\ne '# exit 6'\n\
                f <<END # 退出码 6\nexit 5\nEND\ng # 落后时退出码为 6\n~\n";
    let (steps, _) = steps::steps(&document(text));
    let codes: Vec<_> = steps.iter().map(|step| step.codes.clone()).collect();
    assert_eq!(codes, [vec![6], vec![6], vec![0, 6], vec![0, 6], vec![0], vec![6], vec![0, 6]]);
}

#[test]
fn languages_that_do_not_agree_are_found_out() {
    let english = "# A\n## B\n~sh\nls  # look\n~\n~text\nfile\n~\n### C\n";
    let agrees = "# 甲\n## 乙\n~sh\nexport INVOICE_EXPORT_LANG=zh\n~\n~sh\nls  # 看\n~\n~text\n文件\n~\n### 丙\n";
    assert_eq!(disagreements(&document(english), &document(agrees)), [""; 0]);
    for (right, wrong, words) in [
        ("### 丙\n", "", "has no counterpart"),
        ("### 丙", "#### 丙", "is a heading of level 3"),
        ("ls  #", "ls -l #", "not the same but for comments"),
        ("~text\n文件\n~\n", "", "block has no counterpart"),
        ("~text", "~ini", "is a block of \"text\""),
        ("LANG=zh", "LANG=en", "not the same"),
    ] {
        let found = disagreements(&document(english), &document(&agrees.replace(right, wrong)));
        assert!(found.iter().any(|found| found.contains(words)), "{wrong}: {found:?}");
    }
}

#[test]
fn dead_links_and_half_width_punctuation_are_found_out() {
    let text = "# A\n[a](../README.md#try-it) [b](../README.md) [c](https://example.org) [d](none.md) [e](#none)\n\
                <img src=\"pictures/none.svg\">\n~sh\ncat [x](y)\n~\n";
    assert_eq!(document("# A `b`: [c](d.md), e_f\n# A\n# A\n").anchors(), ["a-b-c-e_f", "a", "a-1"]);
    let found = dead_links(&document(text));
    assert_eq!(found.len(), 3, "{found:?}");
    let text = "一,二 `一,二` 三 (四)，five (六) [七](八)九\n~text\n一,二\n~\n";
    assert_eq!(half_width(&document(text)).len(), 1);
    assert_eq!(half_width(&document("三 (四) 五")).len(), 1);
}

#[test]
fn output_is_compared_without_what_differs_from_run_to_run() {
    let printed = "id  started               by\n1   2026-11-22 19:04:36Z  ines\nwritten  12 in 0.3 s\nend\n";
    assert_eq!(
        difference(&lines("id started by\n1 2025-01-01 00:00:00Z ines\nwritten 12 in 12 ms\nend"), printed),
        None
    );
    assert_eq!(difference(&lines("…\nwritten 12 in 12 ms\n…"), printed), None);
    assert_eq!(difference(&lines("id started by\n…"), printed), None);
    assert_eq!(difference(&lines("id …\n1 …\nwritten 12 …\nend"), printed), None);
    assert_eq!(difference(&lines("pid 12\n进程号 1"), "pid     345\n进程号  678\n"), None);
    for wrong in [
        "id …\n2 …\nwritten 12 …\nend",
        "id started by\n…\nwritten 13 in 1 s\n…",
        "…\nend\n…\nwritten 12 in 1 s\n…",
        "id started by",
        "…\nwritten 12 in 1 s",
    ] {
        assert!(difference(&lines(wrong), printed).is_some(), "{wrong}");
    }
}

#[test]
fn a_rewritten_output_keeps_to_the_lines_that_were_shown() {
    let printed = "kind   full\nstatus  success\nwritten  3\nremoved  0\n";
    assert_eq!(rewritten(&lines("kind  full\nwritten  2"), printed).join("\n") + "\n", printed);
    assert_eq!(rewritten(&lines("kind  full\n…\nwritten  2\n…"), printed), ["kind   full", "…", "written  3", "…"]);
}

#[test]
fn fields_are_compared_by_name_at_every_depth() {
    let printed = json!({"a": 1, "list": [{"b": 2}], "none": null});
    assert_eq!(other_fields(&json!({"a": 5, "list": [{"b": 0}, {}], "none": {"c": 1}}), &printed, ""), None);
    let wrong =
        [json!({"a": 1}), json!({"a": 1, "list": [{"c": 2}], "none": 0}), json!({"a": {}, "list": [], "none": 0})];
    for wrong in wrong {
        assert!(other_fields(&wrong, &printed, "").is_some(), "{wrong}");
    }
}
