//! One file of the hub, written into the cache under a name that was checked.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Component, Path, PathBuf},
    process,
};

use polylance_hub::Token;
use ureq::tls::{TlsConfig, TlsProvider};

/// How often an interrupted download is resumed.
const MAX_RESUMES: usize = 3;

/// Fetches files. The user's token is sent to the hub itself, and never to a host that it redirects to.
pub(super) struct Agent {
    agent: ureq::Agent,
    token: Option<Token>,
}

/// An agent for the hub.
pub(super) fn agent(endpoint: &str, token: Option<Token>) -> Agent {
    let tls = TlsConfig::builder().provider(TlsProvider::Rustls).build();
    let config = ureq::Agent::config_builder()
        .tls_config(tls)
        .redirect_auth_headers(ureq::config::RedirectAuthHeaders::SameHost)
        .build();
    tracing::debug!(endpoint, "fetching from the hub");
    Agent { agent: config.into(), token }
}

impl Agent {
    /// Downloads `url`, which has exactly `size` bytes, to a temporary file, and renames that to `file`.
    pub(super) fn download(&self, url: &str, size: u64, file: &Path) -> io::Result<()> {
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut part = file.as_os_str().to_owned();
        part.push(format!(".{}.part", process::id()));
        let part = PathBuf::from(part);
        let written = self.write(url, size, &part).and_then(|()| fs::rename(&part, file));
        if written.is_err() {
            let _gone = fs::remove_file(&part);
        }
        written
    }

    fn write(&self, url: &str, size: u64, part: &Path) -> io::Result<()> {
        let mut out = File::create(part)?;
        let (mut written, mut tries) = (0, 0);
        while written < size {
            match self.append(url, size, written, &mut out) {
                Ok(0) if tries >= MAX_RESUMES => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if tries >= MAX_RESUMES => return Err(error),
                Ok(0) | Err(_) => tries += 1,
                Ok(_) => {}
            }
            // Bytes written before an error are kept.
            written = out.metadata()?.len();
        }
        out.sync_all()
    }

    /// Appends the bytes from `first` on, and never more than `size` in all.
    fn append(&self, url: &str, size: u64, first: u64, out: &mut File) -> io::Result<u64> {
        let mut request = self.agent.get(url).header("Range", format!("bytes={first}-"));
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {}", token.secret()));
        }
        let response = request.call().map_err(io::Error::other)?;
        if first > 0 && response.status() != 206 {
            return Err(io::Error::other("the hub does not resume an interrupted download"));
        }
        let mut missing = response.into_body().into_reader().take(size - first);
        let copied = io::copy(&mut missing, out)?;
        out.flush()?;
        Ok(copied)
    }
}

/// Makes `pointer` a relative link to the file, like other programs that use the cache.
pub(super) fn point(pointer: &Path, file: &Path) -> io::Result<()> {
    if pointer.exists() {
        return Ok(());
    }
    let Some(folder) = pointer.parent() else { return Err(io::ErrorKind::InvalidInput.into()) };
    fs::create_dir_all(folder)?;
    match std::os::unix::fs::symlink(relative(folder, file), pointer) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    }
}

/// The path from a folder to a file.
fn relative(folder: &Path, file: &Path) -> PathBuf {
    let (from, to): (Vec<Component<'_>>, Vec<Component<'_>>) =
        (folder.components().collect(), file.components().collect());
    let same = from.iter().zip(&to).take_while(|(one, other)| one == other).count();
    let up = (same..from.len()).map(|_| Component::ParentDir);
    up.chain(to[same..].iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointer_is_a_relative_link_inside_the_cache() {
        let found = relative(Path::new("/c/models--a/snapshots/c0ffee/1_Pooling"), Path::new("/c/models--a/blobs/x"));
        assert_eq!(found, Path::new("../../../blobs/x"));
    }
}
