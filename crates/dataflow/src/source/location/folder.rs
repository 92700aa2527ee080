//! Sources on this machine: a file, a folder or a glob, with symbolic links followed.

use std::{
    collections::HashSet,
    fs::{self, Metadata},
    io,
    path::{Path, PathBuf},
    rc::Rc,
};

use object_store::path::Path as ObjectPath;

use super::{
    glob::FileFilter,
    listing::{Listing, ListingBudget},
};
use crate::{
    error::SourceError,
    source::{
        file::{FileState, SourceFile},
        uri::is_glob,
    },
};

/// The largest number of followed links to folders: more are a maze of links to each other.
const MAX_LINKED_FOLDERS: usize = 100_000;

/// The files that a path names. Their addresses begin with `prefix`: nothing, or `file://`.
pub(super) fn find(uri: &str, prefix: &str, path: &str, memory: u64) -> Result<Listing, SourceError> {
    let whole = path.trim_end_matches('/');
    let whole = if whole.is_empty() { "/" } else { whole };
    match metadata(uri, whole)? {
        Some(metadata) if metadata.is_dir() => return walk(uri, prefix, whole, &FileFilter::default(), memory),
        Some(metadata) if metadata.is_file() && !path.ends_with('/') => {
            return Ok(Listing { files: vec![file(format!("{prefix}{whole}"), &metadata)], ..Listing::default() });
        }
        Some(metadata) if !metadata.is_file() => {
            let message =
                "neither a file nor a folder: write its content to a file first, or pipe it into the source `-`"
                    .to_owned();
            return Err(SourceError::Uri { uri: uri.to_owned(), message });
        }
        _ => {}
    }
    if !is_glob(whole) {
        return Ok(Listing::default());
    }
    // A part that exists under exactly this name is no pattern.
    let mut folder = String::new();
    let mut rest = whole.trim_start_matches('/');
    while let Some((part, after)) = rest.split_once('/') {
        let next = format!("{folder}/{part}");
        if is_glob(part) && metadata(uri, &next)?.is_none() {
            break;
        }
        (folder, rest) = (next, after);
    }
    let filter = FileFilter::matching(uri, rest)?;
    let folder = if folder.is_empty() { "/" } else { &folder };
    match metadata(uri, folder)? {
        Some(metadata) if metadata.is_dir() => walk(uri, prefix, folder, &filter, memory),
        _ => Ok(Listing::default()),
    }
}

/// The metadata of a path, if it exists.
fn metadata(uri: &str, path: &str) -> Result<Option<Metadata>, SourceError> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(source) => Err(SourceError::File { uri: uri.to_owned(), source }),
    }
}

fn file(uri: String, metadata: &Metadata) -> SourceFile {
    let state = Some(FileState::of_local(metadata));
    SourceFile { uri, path: ObjectPath::default(), size: metadata.len(), state, unreadable: None }
}

/// A folder of the walk and the folders above it, by their paths without links.
struct Folder {
    canonical: PathBuf,
    above: Option<Rc<Folder>>,
}

impl Folder {
    /// Whether a folder is this one or one above it, or contains one of them.
    fn is_below(&self, canonical: &Path) -> bool {
        let mut folder = Some(self);
        while let Some(this) = folder {
            if this.canonical.starts_with(canonical) {
                return true;
            }
            folder = this.above.as_deref();
        }
        false
    }
}

/// A folder to read: its path below the root, and whether a link leads to it.
struct Next {
    inner: String,
    folder: Rc<Folder>,
    linked: bool,
}

struct Walk<'a> {
    root: &'a str,
    prefix: &'a str,
    filter: &'a FileFilter,
    found: Listing,
    /// Paths without links of the files in `found`, where a link led to them.
    targets: Vec<Option<PathBuf>>,
    next: Vec<Next>,
    linked_folders: usize,
    budget: ListingBudget,
    /// Whether a file exceeded the memory of the listing.
    full: bool,
}

/// The selected files below a folder, each once, by their addresses in rising order.
fn walk(uri: &str, prefix: &str, root: &str, filter: &FileFilter, memory: u64) -> Result<Listing, SourceError> {
    let failed = |source| SourceError::File { uri: uri.to_owned(), source };
    let canonical = fs::canonicalize(root).map_err(failed)?;
    let first = Next {
        inner: String::new(),
        folder: Rc::new(Folder { canonical: canonical.clone(), above: None }),
        linked: false,
    };
    let mut walk = Walk {
        root: root.trim_end_matches('/'),
        prefix,
        filter,
        found: Listing::default(),
        targets: Vec::new(),
        next: Vec::new(),
        linked_folders: 0,
        budget: ListingBudget::new(memory),
        full: false,
    };
    walk.read_folder(&first).map_err(failed)?;
    while let Some(next) = walk.next.pop().filter(|_| !walk.full) {
        if let Err(error) = walk.read_folder(&next) {
            walk.refuse(&next.inner, format!("the folder cannot be read: {error}"));
        }
    }
    if walk.full {
        return Err(walk.budget.error(uri));
    }
    if walk.linked_folders >= MAX_LINKED_FOLDERS {
        let message = format!("more than {MAX_LINKED_FOLDERS} symbolic links to folders");
        return Err(SourceError::Uri { uri: uri.to_owned(), message });
    }
    Ok(walk.deduplicated(&canonical))
}

impl Walk<'_> {
    fn path(&self, inner: &str) -> String {
        format!("{}/{inner}", self.root)
    }

    fn refuse(&mut self, inner: &str, message: String) {
        let uri = format!("{}{}", self.prefix, self.path(inner));
        self.add(SourceFile::unreadable(uri, message), None);
    }

    fn add(&mut self, file: SourceFile, target: Option<PathBuf>) {
        self.full |= !self.budget.reserve(&file);
        if !self.full {
            self.found.files.push(file);
            self.targets.push(target);
        }
    }

    fn read_folder(&mut self, next: &Next) -> io::Result<()> {
        for entry in fs::read_dir(self.path(&next.inner))? {
            let entry = entry?;
            if self.full {
                return Ok(());
            }
            let name = entry.file_name();
            let inner_of = |name: &str| match next.inner.as_str() {
                "" => name.to_owned(),
                inner => format!("{inner}/{name}"),
            };
            let Some(name) = name.to_str() else {
                let inner = inner_of(&name.to_string_lossy());
                if self.filter.has(&inner) {
                    self.refuse(&inner, "the name is not UTF-8: rename the file".to_owned());
                }
                continue;
            };
            if !self.filter.hides(name) {
                self.entry(next, name, inner_of(name), &entry);
            }
        }
        Ok(())
    }

    fn entry(&mut self, next: &Next, name: &str, inner: String, entry: &fs::DirEntry) {
        let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        let path = self.path(&inner);
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            // Links to nothing or to themselves, and files that were deleted meanwhile.
            Err(error) if is_link && error.kind() != io::ErrorKind::PermissionDenied => {
                self.found.notes.push(format!("the symbolic link {path} is skipped: it leads nowhere"));
                return;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) if self.filter.has(&inner) => return self.refuse(&inner, error.to_string()),
            Err(_) => return,
        };
        let linked = next.linked || is_link;
        let canonical = || {
            if is_link { fs::canonicalize(&path).ok() } else { Some(next.folder.canonical.join(name)) }
        };
        if metadata.is_dir() {
            let Some(canonical) = canonical() else { return };
            if linked && next.folder.is_below(&canonical) {
                self.found.notes.push(format!("the symbolic link {path} is skipped: it leads to a folder above it"));
                return;
            }
            self.linked_folders += usize::from(linked);
            if self.linked_folders < MAX_LINKED_FOLDERS {
                let folder = Rc::new(Folder { canonical, above: Some(Rc::clone(&next.folder)) });
                self.next.push(Next { inner, folder, linked });
            }
        } else if metadata.is_file() && self.filter.has(&inner) {
            let target = if linked { canonical() } else { None };
            self.add(file(format!("{}{path}", self.prefix), &metadata), target);
        }
    }

    /// Of several names of one file, keeps the one without a link, or else the first.
    fn deduplicated(self, root: &Path) -> Listing {
        let Listing { files, notes, .. } = self.found;
        let mut named: Vec<(SourceFile, Option<PathBuf>)> = files.into_iter().zip(self.targets).collect();
        named.sort_by(|(a, _), (b, _)| a.uri.cmp(&b.uri));
        let mut taken: HashSet<PathBuf> = HashSet::new();
        if named.iter().any(|(_, target)| target.is_some()) {
            let before = self.prefix.len() + self.root.len() + 1;
            let real = named.iter().filter(|(_, target)| target.is_none());
            taken.extend(real.map(|(file, _)| root.join(&file.uri[before..])));
        }
        let once = |(_, target): &(SourceFile, Option<PathBuf>)| match target {
            Some(target) => taken.insert(target.clone()),
            None => true,
        };
        let files = named.into_iter().filter(once).map(|(file, _)| file).collect();
        let scope = self.filter.scope(format!("{}{}/", self.prefix, self.root));
        Listing { files, scope, notes }
    }
}
