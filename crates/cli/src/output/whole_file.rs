//! Files that are whole, or not there.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;
use uuid::Uuid;

use crate::error::Result;

/// Writes all of a file, or nothing.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let whole = WholeFile::create(path)?;
    whole.open()?.write_all(bytes).with_context(|| format!("writing {}", path.display()))?;
    whole.keep()
}

/// A file that is written beside its place and put there once it is whole: until then, what was there stays.
#[derive(Debug)]
pub(crate) struct WholeFile {
    path: PathBuf,
    /// None for a device or a pipe, which is written as it is.
    beside: Option<PathBuf>,
}

impl WholeFile {
    /// Begins the file at `path`.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        // A link stays one: what it leads to is replaced.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let creating = || format!("creating {}", path.display());
        if let Some(found) = found(&path).with_context(creating)? {
            if found.is_dir() {
                return Err(io::Error::from(ErrorKind::IsADirectory)).with_context(creating);
            }
            if !found.is_file() {
                return Ok(Self { path, beside: None });
            }
            // Another name would take the place of a file that may not be written.
            OpenOptions::new().write(true).open(&path).with_context(creating)?;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let beside = path.with_file_name(format!(".{name}.{}.part", Uuid::now_v7()));
        OpenOptions::new().write(true).create_new(true).open(&beside).with_context(creating)?;
        Ok(Self { beside: Some(beside), path })
    }

    /// Where its content goes.
    pub(crate) fn open(&self) -> Result<File> {
        let path = self.beside.as_ref().unwrap_or(&self.path);
        OpenOptions::new().write(true).open(path).with_context(|| format!("creating {}", self.path.display()))
    }

    /// Puts the file, which is written and closed, in its place.
    pub(crate) fn keep(mut self) -> Result<()> {
        let Some(beside) = self.beside.take() else { return Ok(()) };
        let kept = put(&beside, &self.path);
        if kept.is_err() {
            // What could not be put there is taken away.
            self.beside = Some(beside);
        }
        kept.with_context(|| format!("writing {}", self.path.display()))
    }
}

impl Drop for WholeFile {
    fn drop(&mut self) {
        if let Some(beside) = &self.beside {
            // There is nobody to tell, and nothing lost.
            let _left = fs::remove_file(beside);
        }
    }
}

fn found(path: &Path) -> io::Result<Option<fs::Metadata>> {
    match fs::metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn put(beside: &Path, path: &Path) -> io::Result<()> {
    if let Some(before) = found(path)? {
        fs::set_permissions(beside, before.permissions())?;
    }
    File::open(beside)?.sync_all()?;
    fs::rename(beside, path)
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
    fn a_file_is_whole_or_what_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.csv");
        let whole = WholeFile::create(&path).unwrap();
        whole.open().unwrap().write_all(b"first").unwrap();
        assert!(!path.exists());
        whole.keep().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"first");

        let given_up = WholeFile::create(&path).unwrap();
        given_up.open().unwrap().write_all(b"half").unwrap();
        drop(given_up);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        let again = WholeFile::create(&path).unwrap();
        again.open().unwrap().write_all(b"2").unwrap();
        again.keep().unwrap();
        assert_eq!((fs::read(&path).unwrap(), names(folder.path())), (b"2".to_vec(), vec!["rows.csv".to_owned()]));
    }

    #[test]
    fn a_place_that_cannot_have_a_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = WholeFile::create(folder.path()).unwrap_err();
        assert!(error.to_string().starts_with("creating "), "{error:#}");
        assert!(WholeFile::create(&folder.path().join("none/rows.csv")).is_err());
        assert!(names(folder.path()).is_empty());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_and_a_device_stay_what_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("rows.csv"), folder.path().join("link.csv"));
        fs::write(&file, b"old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let whole = WholeFile::create(&link).unwrap();
        whole.open().unwrap().write_all(b"new").unwrap();
        whole.keep().unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&file).unwrap(), b"new");
        let device = WholeFile::create(Path::new("/dev/null")).unwrap();
        device.open().unwrap().write_all(b"gone").unwrap();
        device.keep().unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }
}
