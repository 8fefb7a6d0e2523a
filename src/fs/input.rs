//! Owns the reading of a file that an operator names. The path may lead over links, and to a pipe: `/dev/stdin`, or the
//! `/dev/fd/63` of a shell's `<(…)`.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags};

use crate::refusal::{TextMark, cannot_be_read};

/// Reads a whole file of text, and sees whether a mark of an editor precedes it.
///
/// # Errors
/// Those of [`read_input`].
pub fn read_text(path: &Path) -> anyhow::Result<Result<Vec<u8>, TextMark>> {
    let content = read_input(path)?;
    Ok(TextMark::of(&content).map_or(Ok(content), Err))
}

/// Reads the whole file.
///
/// # Errors
/// Those of the operating system, and an empty pipe that no program writes to: a read could wait for ever.
pub fn read_input(path: &Path) -> anyhow::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(CWD, path, flags, Mode::empty());
    let mut file = File::from(opened.map_err(|error| cannot_be_read(error.into()))?);
    let mut content = Vec::new();
    if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) == FileType::Fifo {
        let mut first = [0];
        match file.read(&mut first) {
            Ok(0) => return Err(unwritten_pipe()),
            Ok(_) => content.extend(first),
            // A program is about to write.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    rustix::fs::fcntl_setfl(&file, rustix::fs::fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    file.read_to_end(&mut content)?;
    Ok(content)
}

fn unwritten_pipe() -> anyhow::Error {
    message! {
        "it is an empty pipe, and no program writes to it", "这是一个空管道，没有程序向其写入";
        "name a regular file, or start the program that writes to the pipe first",
        "请指定普通文件，或先启动向该管道写入的程序"
    }
    .into()
}
