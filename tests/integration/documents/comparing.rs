//! Compares what a document shows with what was printed, without what differs from run to run, and rewrites what it
//! shows.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

/// What differs from run to run, and what is put in its place.
static VOLATILE: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    let unit = "(?:ms|µs|us|s|m|h|d|min|seconds?|minutes?|hours?|days?)\\b";
    let chinese = "(?:毫秒|秒|分钟|分|小时|天)";
    let rules = [
        (r"\s+".to_owned(), " "),
        (r"\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?(Z\b|[+-]\d\d:\d\d\b)?".to_owned(), "TIME"),
        (r"\b\d{4}-\d\d-\d\d\b".to_owned(), "DATE"),
        (r"\b\d{8}T\d{6}Z".to_owned(), "STAMP"),
        // The name of a file begins with the issue date, and the invoices of the demo are always young.
        (r"/\d{8}\+".to_owned(), "/DAY+"),
        (r"\b\d\d:\d\d:\d\d\b".to_owned(), "TIME"),
        (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b".to_owned(), "HEX"),
        (r"\b[0-9a-f]{16,}\b".to_owned(), "HEX"),
        (r#"("\w*(?:seconds|lag)": ?)[\d.]+"#.to_owned(), "${1}N"),
        (r"\b(pid|process|进程号|进程)(:? ?)\d+".to_owned(), "$1${2}N"),
        (r"\binvoice-export \d+\.\d+\.\d+\S*".to_owned(), "invoice-export VERSION"),
        (r"\b\d+(\.\d+)? ?[KMGT]i?B\b|\b\d+ ?bytes?\b|\d+(\.\d+)? ?字节".to_owned(), "SIZE"),
        (format!("\\b\\d+(\\.\\d+)? ?{unit}( \\d+ ?{unit})*"), "SPAN"),
        (format!("\\d+(\\.\\d+)? ?{chinese}( ?\\d+ ?{chinese})*"), "SPAN"),
        (r"\b\d+(\.\d+)?( \w+)?/s\b".to_owned(), "RATE"),
    ];
    rules.into_iter().map(|(pattern, instead)| (Regex::new(&pattern).unwrap(), instead)).collect()
});

/// The first difference between what is shown and what was printed.
pub(crate) fn difference(shown: &[String], printed: &str) -> Option<String> {
    let real: Vec<String> = printed.lines().map(masked).collect();
    let parts: Vec<Vec<String>> =
        parts(shown).iter().map(|part| part.iter().map(|line| masked(line)).collect()).collect();
    let mut from = 0;
    for (n, part) in parts.iter().enumerate() {
        let stands = |at: usize| real.get(at..at + part.len()).is_some_and(|lines| part.iter().zip(lines).all(agree));
        let at = match (n == 0, n + 1 == parts.len()) {
            (true, true) => (real.len() == part.len() && stands(0)).then_some(0),
            (true, false) => stands(0).then_some(0),
            (false, true) => real.len().checked_sub(part.len()).filter(|&at| at >= from && stands(at)),
            (false, false) => (from..=real.len()).find(|&at| stands(at)),
        };
        let Some(at) = at else {
            let differs =
                part.iter().find(|shown| !real[from.min(real.len())..].iter().any(|real| agree((shown, real))));
            let line = differs.or(real.iter().find(|real| !part.iter().any(|shown| agree((shown, real)))));
            return Some(line.map_or("the order of lines".into(), |line| format!("the line {line:?}")));
        };
        from = at + part.len();
    }
    None
}

/// Whether a line is what is shown, which may leave its end out.
fn agree((shown, real): (&String, &String)) -> bool {
    shown == real || shown.strip_suffix('…').is_some_and(|start| real.starts_with(start.trim_end()))
}

/// What a block should show: all that was printed, or, where the block leaves lines out, the same lines as before.
pub(crate) fn rewritten(shown: &[String], printed: &str) -> Vec<String> {
    let real: Vec<String> = printed.lines().map(|line| line.trim_end().to_owned()).collect();
    if !shown.iter().any(|line| is_gap(line)) {
        return real;
    }
    let wanted: Vec<&String> = shown.iter().filter(|line| !is_gap(line)).collect();
    let mut kept: Vec<usize> = Vec::new();
    for line in &wanted {
        let from = kept.last().map_or(0, |&at| at + 1);
        kept.extend((from..real.len()).find(|&at| label(&real[at]) == label(line)));
    }
    if kept.len() * 2 < wanted.len() {
        return real;
    }
    let (mut lines, mut next) = (Vec::new(), 0);
    for at in kept {
        if at > next {
            lines.push("…".to_owned());
        }
        lines.push(real[at].clone());
        next = at + 1;
    }
    if next < real.len() {
        lines.push("…".to_owned());
    }
    lines
}

/// Where two JSON values have fields of other names; of a list its first element counts.
pub(crate) fn other_fields(shown: &Value, printed: &Value, at: &str) -> Option<String> {
    match (shown, printed) {
        (Value::Object(shown), Value::Object(printed)) => {
            let one_sided = |one: &serde_json::Map<_, _>, other: &serde_json::Map<String, Value>| {
                one.keys().find(|&key: &&String| !other.contains_key(key)).cloned()
            };
            let name = one_sided(shown, printed).or(one_sided(printed, shown));
            name.map(|name| format!("{at}.{name}")).or_else(|| {
                shown.iter().find_map(|(name, value)| other_fields(value, &printed[name], &format!("{at}.{name}")))
            })
        }
        (Value::Array(shown), Value::Array(printed)) => shown
            .first()
            .zip(printed.first())
            .and_then(|(shown, printed)| other_fields(shown, printed, &format!("{at}[0]"))),
        (Value::Object(_) | Value::Array(_), other) | (other, Value::Object(_) | Value::Array(_))
            if !other.is_null() =>
        {
            Some(at.to_owned())
        }
        _ => None,
    }
}

/// The runs of lines between those that stand for lines left out.
fn parts(shown: &[String]) -> Vec<&[String]> {
    shown.split(|line| is_gap(line)).collect()
}

fn is_gap(line: &str) -> bool {
    matches!(line.trim(), "…" | "...")
}

/// A line without what differs from run to run. The width of a column is such a thing.
fn masked(line: &str) -> String {
    let mut line = line.trim().to_owned();
    for (pattern, instead) in VOLATILE.iter() {
        line = pattern.replace_all(&line, *instead).into_owned();
    }
    line
}

/// What a line begins with: the name of a row, or its first word.
fn label(line: &str) -> String {
    let line = line.trim_end();
    let end = line.trim_start().find("  ").or_else(|| line.find(' ')).unwrap_or(line.len());
    masked(line.trim_start().get(..end).unwrap_or(line))
}
