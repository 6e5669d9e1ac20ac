//! Fills a directory: files of a tree, and what is kept of an older one.

use std::io;

use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt as _};

use super::{Applied, During as _, Failure, Sync};
use crate::plugin::tree::TreeFile;
use crate::plugin::types::FileMode;

/// How deep kept directories may nest, against trees that were made to exhaust the stack.
const MAX_KEPT_DEPTH: usize = 64;

pub(super) struct Writer {
    pub(super) sync: Sync,
    pub(super) applied: Applied,
}

impl Writer {
    /// Writes files that are sorted by path; each directory is made and opened once.
    pub(super) fn write(&mut self, root: &Dir, files: &[TreeFile]) -> Result<(), Failure> {
        let mut open: Vec<(String, Dir)> = Vec::new();
        for file in files {
            let (parent, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
            while open.last().is_some_and(|(path, _)| !contains(path, parent)) {
                self.close(open.pop())?;
            }
            self.descend(root, &mut open, parent)?;
            let dir = open.last().map_or(root, |(_, dir)| dir);
            self.write_file(dir, name, file)?;
        }
        while let Some(last) = open.pop() {
            self.close(Some(last))?;
        }
        Ok(())
    }

    /// Makes and opens what is missing on the way to `parent`.
    fn descend(
        &self,
        root: &Dir,
        open: &mut Vec<(String, Dir)>,
        parent: &str,
    ) -> Result<(), Failure> {
        loop {
            let (at, dir) = open
                .last()
                .map_or(("", root), |(path, dir)| (path.as_str(), dir));
            let rest = parent
                .strip_prefix(at)
                .unwrap_or(parent)
                .trim_start_matches('/');
            let name = rest.split('/').next().unwrap_or_default();
            if name.is_empty() {
                return Ok(());
            }
            let path = if at.is_empty() {
                name.to_owned()
            } else {
                format!("{at}/{name}")
            };
            dir.create_dir(name).during("creating", &path)?;
            let next = open_dir(dir, name).during("opening", &path)?;
            open.push((path, next));
        }
    }

    fn close(&self, dir: Option<(String, Dir)>) -> Result<(), Failure> {
        dir.map_or(Ok(()), |(path, dir)| self.sync_dir(&dir, &path))
    }

    fn write_file(&mut self, dir: &Dir, name: &str, file: &TreeFile) -> Result<(), Failure> {
        use io::Write as _;
        let mode = match file.mode {
            FileMode::Regular => 0o644,
            FileMode::Executable => 0o755,
        };
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(mode);
        let mut written = dir
            .open_with(name, &options)
            .during("creating", &file.path)?;
        written
            .write_all(&file.bytes)
            .during("writing", &file.path)?;
        if self.sync == Sync::Full {
            written.sync_all().during("syncing", &file.path)?;
        }
        self.applied.files += 1;
        Ok(())
    }

    pub(super) fn sync_dir(&self, dir: &Dir, path: &str) -> Result<(), Failure> {
        let needed = match self.sync {
            Sync::Full => true,
            Sync::Kept => self.applied.kept > 0,
            Sync::None => false,
        };
        if !needed {
            return Ok(());
        }
        // A handle may be one that only names its directory; the system does not sync such.
        open_dir(dir, ".")
            .and_then(|dir| Ok(rustix::fs::fsync(dir)?))
            .during("syncing", path)
    }

    /// Carries one kept path over, if it is there.
    pub(super) fn keep(&mut self, old: &Dir, new: &Dir, path: &str) -> Result<(), Failure> {
        let mut from = old.try_clone().during("opening", path)?;
        let mut to = new.try_clone().during("opening", path)?;
        let (parents, name) = path.rsplit_once('/').unwrap_or(("", path));
        for parent in parents.split('/').filter(|parent| !parent.is_empty()) {
            from = match open_dir(&from, parent) {
                Ok(dir) => dir,
                Err(_) => return Ok(()),
            };
            match to.create_dir(parent) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).during("creating", path),
            }
            to = open_dir(&to, parent).during("opening", path)?;
        }
        self.copy(&from, &to, name, path, 0)?;
        self.sync_dir(&to, path)
    }

    fn copy(
        &mut self,
        from: &Dir,
        to: &Dir,
        name: &str,
        path: &str,
        depth: usize,
    ) -> Result<(), Failure> {
        let metadata = match from.symlink_metadata(name) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).during("reading", path),
        };
        if metadata.is_dir() && depth < MAX_KEPT_DEPTH {
            self.copy_dir(from, to, name, path, depth)
        } else if metadata.is_file() {
            self.copy_file(from, to, name, path)
        } else {
            // The agent may have left links, pipes or devices; none of them is followed or made again.
            self.applied.skipped += 1;
            Ok(())
        }
    }

    fn copy_dir(
        &mut self,
        from: &Dir,
        to: &Dir,
        name: &str,
        path: &str,
        depth: usize,
    ) -> Result<(), Failure> {
        let from = open_dir(from, name).during("opening", path)?;
        to.create_dir(name).during("creating", path)?;
        let to = open_dir(to, name).during("opening", path)?;
        self.applied.kept += 1;
        for entry in from.entries().during("listing", path)? {
            let name = entry.during("listing", path)?.file_name();
            let Some(name) = name.to_str() else {
                self.applied.skipped += 1;
                continue;
            };
            self.copy(&from, &to, name, &format!("{path}/{name}"), depth + 1)?;
        }
        self.sync_dir(&to, path)
    }

    fn copy_file(&mut self, from: &Dir, to: &Dir, name: &str, path: &str) -> Result<(), Failure> {
        let mut read = OpenOptions::new();
        read.read(true).custom_flags(flag(
            rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK,
        ));
        let mut source = from.open_with(name, &read).during("reading", path)?;
        let metadata = source.metadata().during("reading", path)?;
        if !metadata.is_file() {
            self.applied.skipped += 1;
            return Ok(());
        }
        let executable = cap_std::fs::MetadataExt::mode(&metadata) & 0o100 != 0;
        let mut write = OpenOptions::new();
        write
            .write(true)
            .create_new(true)
            .mode(if executable { 0o755 } else { 0o644 });
        let mut copy = to.open_with(name, &write).during("creating", path)?;
        io::copy(&mut source, &mut copy).during("copying", path)?;
        if self.sync != Sync::None {
            copy.sync_all().during("syncing", path)?;
        }
        self.applied.kept += 1;
        Ok(())
    }
}

/// Opens a directory by its name in `dir`, and never what a link there points to.
pub(super) fn open_dir(dir: &Dir, name: &str) -> io::Result<Dir> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    Ok(Dir::from_std_file(opened.into()))
}

fn flag(flags: rustix::fs::OFlags) -> i32 {
    flags.bits().cast_signed()
}

/// Whether `path` is `dir` or below it.
fn contains(dir: &str, path: &str) -> bool {
    path.strip_prefix(dir)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
