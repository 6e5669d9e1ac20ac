//! What this process keeps in memory.

use std::fs;
use std::io;

use rustix::mm::{Advice, madvise};

/// Lets go of the pages of the program's own code. Those that are needed again come back from the file, most of them from the system's
/// cache; those that only the start needed, which is more than half, do not count as this process's memory any more.
///
/// # Errors
/// When the system does not say where the code is, or does not take the advice. Nothing is lost then.
pub fn release_code() -> io::Result<()> {
    let program = fs::read_link("/proc/self/exe")?;
    for line in fs::read_to_string("/proc/self/maps")?.lines() {
        let is_own = line.split_once('/').is_some_and(|(_, path)| {
            Some(path)
                == program
                    .to_str()
                    .and_then(|program| program.strip_prefix('/'))
        });
        if let Some((start, length)) = code(line).filter(|_| is_own) {
            #[expect(
                unsafe_code,
                reason = "the range is a private mapping of a file that nobody writes to, so its pages are read again as they were"
            )]
            // SAFETY: see the reason; nothing but the kernel's page tables changes. A program that is overwritten where it lies, which
            // the system refuses on local disks, breaks every process that runs it with or without this.
            unsafe {
                madvise(start as *mut _, length, Advice::LinuxDontNeed)?;
            }
        }
    }
    Ok(())
}

/// Start and length of a mapping that can be executed and never be written to.
fn code(line: &str) -> Option<(usize, usize)> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    if words.next()? != "r-xp" {
        return None;
    }
    let start = usize::from_str_radix(start, 16).ok()?;
    let end = usize::from_str_radix(end, 16).ok()?;
    Some((start, end.checked_sub(start)?))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn code_is_what_can_be_executed_and_not_written() {
        let line = |rights| format!("55d0a000-55d0c000 {rights} 00001000 fe:00 42   /bin/program");
        assert_eq!(code(&line("r-xp")), Some((0x55d0_a000, 0x2000)));
        for rights in ["r--p", "rw-p", "rwxp", "r-xs"] {
            assert_eq!(code(&line(rights)), None, "{rights}");
        }
        assert_eq!(code("nonsense"), None);
    }

    #[test]
    fn the_program_goes_on_after_its_code_was_let_go() {
        let resident = || {
            let status = fs::read_to_string("/proc/self/status").unwrap();
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("RssFile:"));
            let kilobytes = line.unwrap().trim().trim_end_matches(" kB");
            kilobytes.parse::<u64>().unwrap()
        };
        // Tests beside this one bring pages in meanwhile.
        let is_less = |_| {
            let before = resident();
            release_code().unwrap();
            resident() < before
        };
        assert!((0..100).any(is_less));
    }
}
