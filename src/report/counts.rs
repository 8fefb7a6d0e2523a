//! Counts for people: a number with its noun, and several as a list. A count that is part of another one stands in
//! brackets behind it, so that the list does not read as a sum of all.

use bytesize::ByteSize;

use crate::lang::Text;
use crate::run::CountName;

/// A number with its noun, in English.
pub fn count(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// How many things differ.
pub fn differ(number: u64) -> Text {
    let verb = if number == 1 { "differs" } else { "differ" };
    text!("{number} {verb}", "有 {number} 处差异")
}

/// One count with its parts.
struct Term {
    whole: Text,
    parts: Vec<Text>,
}

/// Lists these counts in their order. Parts follow their whole; without it they stand alone.
pub fn listed(counts: impl IntoIterator<Item = (&'static CountName, u64)>) -> Option<Text> {
    let mut terms: Vec<(&str, Term)> = Vec::new();
    for (name, number) in counts {
        let shown = shown(name, number);
        match terms.last_mut().filter(|(column, _)| name.part_of() == Some(*column)) {
            Some((_, whole)) => whole.parts.push(shown),
            None => terms.push((name.column, Term { whole: shown, parts: Vec::new() })),
        }
    }
    let terms: Vec<Text> = terms.into_iter().map(|(_, term)| term.text()).collect();
    (!terms.is_empty()).then(|| Text::join(&terms, ", ", "，"))
}

impl Term {
    fn text(self) -> Text {
        let Self { whole, parts } = self;
        if parts.is_empty() {
            return whole;
        }
        let parts = Text::join(&parts, ", ", "，");
        text!("{whole} ({parts})", "{whole}（{parts}）"; whole, parts)
    }
}

fn shown(CountName { column, zh, .. }: &CountName, number: u64) -> Text {
    match *column {
        "bytes" => Text::same(ByteSize::b(number).to_string()),
        // Late arrivals are among the others.
        "late" => text!("{number} of them late", "其中{zh} {number}"),
        _ => Text::new(format!("{number} {}", column.replace('_', " ")), format!("{zh} {number}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lang::Lang;
    use crate::run::Counts;

    #[test]
    fn what_is_part_of_a_count_stands_in_brackets_behind_it() {
        let counts = Counts {
            seen: 9,
            written: 4,
            new: 1,
            replaced: 2,
            moved: 1,
            unchanged: 5,
            taken_over: 3,
            late: 1,
            removed: 1,
            ..Counts::default()
        };
        let shown = Counts::NAMES.iter().zip(counts.values());
        let shown = listed(shown.filter(|(name, number)| *number > 0 && name.column != "seen")).unwrap();
        assert_eq!(
            shown.in_lang(Lang::En),
            "4 written (1 new, 2 replaced, 1 moved), 5 unchanged (3 taken over), 1 of them late, 1 removed"
        );
        assert_eq!(
            shown.in_lang(Lang::Zh),
            "写入 4（新增 1，替换 2，移动 1），未变化 5（接管 3），其中迟到 1，删除文件 1"
        );
        assert_eq!(listed([]), None);
    }
}
