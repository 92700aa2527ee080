//! Files that are written completely or not at all.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;
use uuid::Uuid;

use crate::error::Result;

/// Writes a file completely, or not at all.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let file = AtomicFile::create(path)?;
    file.open()?.write_all(bytes).with_context(|| format!("writing {}", path.display()))?;
    file.persist()
}

/// A file that is written under a temporary name next to its path and renamed once it is complete. Until then the old
/// file stays.
#[derive(Debug)]
pub(crate) struct AtomicFile {
    path: PathBuf,
    /// `None` for a device or a pipe, which is written directly.
    temporary: Option<PathBuf>,
}

impl AtomicFile {
    /// Begins the file at `path`.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        // A link stays a link: its target is replaced.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let creating = || format!("creating {}", path.display());
        if let Some(found) = metadata(&path).with_context(creating)? {
            if found.is_dir() {
                return Err(io::Error::from(ErrorKind::IsADirectory)).with_context(creating);
            }
            if !found.is_file() {
                return Ok(Self { path, temporary: None });
            }
            // A rename would replace a file even if it is read-only.
            OpenOptions::new().write(true).open(&path).with_context(creating)?;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = path.with_file_name(format!(".{name}.{}.part", Uuid::now_v7()));
        OpenOptions::new().write(true).create_new(true).open(&temporary).with_context(creating)?;
        Ok(Self { temporary: Some(temporary), path })
    }

    /// The file to write to.
    pub(crate) fn open(&self) -> Result<File> {
        let path = self.temporary.as_ref().unwrap_or(&self.path);
        OpenOptions::new().write(true).open(path).with_context(|| format!("creating {}", self.path.display()))
    }

    /// Moves the written and closed file to its path.
    pub(crate) fn persist(mut self) -> Result<()> {
        let Some(temporary) = self.temporary.take() else { return Ok(()) };
        let renamed = replace(&temporary, &self.path);
        if renamed.is_err() {
            // The temporary file is removed on drop.
            self.temporary = Some(temporary);
        }
        renamed.with_context(|| format!("writing {}", self.path.display()))
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // The file is incomplete: a failure to remove it loses nothing.
            let _removed = fs::remove_file(temporary);
        }
    }
}

fn metadata(path: &Path) -> io::Result<Option<fs::Metadata>> {
    match fs::metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn replace(temporary: &Path, path: &Path) -> io::Result<()> {
    if let Some(before) = metadata(path)? {
        fs::set_permissions(temporary, before.permissions())?;
    }
    File::open(temporary)?.sync_all()?;
    fs::rename(temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn file_is_complete_or_unchanged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.csv");
        let file = AtomicFile::create(&path).unwrap();
        file.open().unwrap().write_all(b"first").unwrap();
        assert!(!path.exists());
        file.persist().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"first");

        let abandoned = AtomicFile::create(&path).unwrap();
        abandoned.open().unwrap().write_all(b"half").unwrap();
        drop(abandoned);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        let again = AtomicFile::create(&path).unwrap();
        again.open().unwrap().write_all(b"2").unwrap();
        again.persist().unwrap();
        assert_eq!((fs::read(&path).unwrap(), names(folder.path())), (b"2".to_vec(), vec!["rows.csv".to_owned()]));
    }

    #[test]
    fn error_names_a_path_that_cannot_be_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let error = AtomicFile::create(folder.path()).unwrap_err();
        assert!(error.to_string().starts_with("creating "), "{error:#}");
        assert!(AtomicFile::create(&folder.path().join("none/rows.csv")).is_err());
        assert!(names(folder.path()).is_empty());
    }

    #[cfg(unix)]
    #[test]
    fn links_and_devices_are_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("rows.csv"), folder.path().join("link.csv"));
        fs::write(&target, b"old").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let file = AtomicFile::create(&link).unwrap();
        file.open().unwrap().write_all(b"new").unwrap();
        file.persist().unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&target).unwrap(), b"new");
        let device = AtomicFile::create(Path::new("/dev/null")).unwrap();
        device.open().unwrap().write_all(b"gone").unwrap();
        device.persist().unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }
}
