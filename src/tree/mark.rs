//! The mark: which state describes this tree, and which run published into it last.
//!
//! It is the first half of `.export_state/lock`, a file that is never deleted. A volume that is not
//! mounted, was replaced or rolled back has no mark, another one or an older one, and must not be
//! filled quietly.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::fs::private::{FileAccess, PRIVATE, PrivateFolder};
use crate::lang::Explain;
use crate::refusal::Refusal;

/// The lock file's name below `.export_state`.
pub const FILE: &str = "lock";

/// The mark has a sector of its own, so that it is replaced whole.
pub const SECTOR: u64 = 512;

const IN_PART: &str = "in part";

/// What the mark says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    pub state_id: String,
    /// The last run that published; 0 before the first.
    pub run: i64,
    pub written: Written,
}

/// How much of what that run published is in the tree. A copy that was taken meanwhile holds a part, so it is not the
/// tree that the state describes. A run that failed or died leaves `InPart`: how much it published is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    InPart,
    Whole,
}

/// Reads the mark of an open lock file; None if it was never marked.
pub fn read(file: &File) -> anyhow::Result<Option<Mark>> {
    let Some(value) = read_sector(file, 0).explain(|| text!("cannot read the mark", "无法读取目录标记"))?
    else {
        return Ok(None);
    };
    let state_id = value.get("state").and_then(Value::as_str).map(str::to_owned);
    let run = value.get("run").and_then(Value::as_i64);
    let written = if value.get("written") == Some(&json!(IN_PART)) { Written::InPart } else { Written::Whole };
    Ok(state_id.zip(run).map(|(state_id, run)| Mark { state_id, run, written }))
}

/// Reads the mark of a tree that is only looked at.
pub fn of_output(output: &Path) -> anyhow::Result<Option<Mark>> {
    let Some(private) = PrivateFolder::open_existing(&output.join(PRIVATE))? else { return Ok(None) };
    private.open(FILE, FileAccess::Read)?.map_or(Ok(None), |file| read(&file))
}

/// Makes the mark durable: before the run publishes anything, and before its end is on record.
pub fn write(file: &File, mark: &Mark) -> anyhow::Result<()> {
    let written = match mark.written {
        Written::InPart => IN_PART,
        Written::Whole => "whole",
    };
    write_sector(file, 0, &json!({ "state": mark.state_id, "run": mark.run, "written": written }))
        .and_then(|()| file.sync_all())
        .explain(|| text!("cannot write the mark", "无法写入目录标记"))
}

/// Reads one line of JSON; None where there is none.
pub fn read_sector(file: &File, at: u64) -> io::Result<Option<Value>> {
    let mut sector = [0; SECTOR as usize];
    let mut filled = 0;
    while filled < sector.len() {
        match file.read_at(&mut sector[filled..], at + filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    let line = sector[..filled].split(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok(serde_json::from_slice(line).ok())
}

/// Writes one line of JSON, padded with blanks to a whole sector. Where it does not fit, its longest text is cut off.
pub fn write_sector(file: &File, at: u64, value: &Value) -> io::Result<()> {
    let mut line = fitting(value.clone(), SECTOR as usize - 1).into_bytes();
    line.resize(SECTOR as usize - 1, b' ');
    line.push(b'\n');
    file.write_all_at(&line, at)
}

/// The JSON of a value in at most so many bytes. Its longest texts lose their ends, however many bytes JSON takes for a
/// character.
fn fitting(mut value: Value, most: usize) -> String {
    loop {
        let line = value.to_string();
        let texts = value.as_object_mut().into_iter().flat_map(|object| object.values_mut());
        let texts = texts.filter_map(|text| if let Value::String(text) = text { Some(text) } else { None });
        let longest = texts.max_by_key(|text| text.len()).filter(|text| !text.is_empty());
        match longest {
            Some(longest) if line.len() > most => drop(longest.pop()),
            _ => return line,
        }
    }
}

/// Refuses a file system on which two different names may be one file. Asked once, before the tree is
/// marked for the first time.
pub fn refuse_folded_names(private: &PrivateFolder, output: &Path) -> anyhow::Result<()> {
    // Upper and lower case; composed and decomposed.
    for (one, other) in [("probe-case", "PROBE-CASE"), ("probe-\u{e9}", "probe-e\u{301}")] {
        let folded = same_name(private, one, other);
        if folded
            .explain(|| text!("cannot try out how the file system treats names", "无法测试文件系统如何处理文件名"))?
        {
            return Err(Refusal::NamesFolded { output: output.to_path_buf() }.into());
        }
    }
    Ok(())
}

fn same_name(private: &PrivateFolder, one: &str, other: &str) -> anyhow::Result<bool> {
    // A process that died may have left it.
    private.remove(one)?;
    drop(private.create_file(one, 0o600)?);
    let found = private.stat(other)?.is_some();
    private.remove(one)?;
    Ok(found)
}
