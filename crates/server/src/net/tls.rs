//! The certificate and its key, which may be renewed while the server runs.

use std::{
    fmt::Display,
    fs,
    path::Path,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use tokio::time::sleep;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::{ClientHello, ResolvesServerCert},
        sign::CertifiedKey,
    },
};

use crate::{error::ServerError, options::TlsFiles};

/// The certificate that clients receive: from the last time that both files matched.
#[derive(Debug)]
pub(crate) struct Certificate {
    files: TlsFiles,
    current: RwLock<Arc<CertifiedKey>>,
    /// The stamps of the files when they were last read.
    seen: Mutex<FileStamps>,
}

/// Size and modification time of both files.
type FileStamps = [Option<(u64, Option<SystemTime>)>; 2];

impl Certificate {
    /// Reads both files.
    pub(crate) fn read(files: &TlsFiles) -> Result<Self, ServerError> {
        let seen = Mutex::new(stamps(files));
        let current = RwLock::new(Arc::new(read(files)?));
        Ok(Self { files: files.clone(), current, seen })
    }

    /// Reads the files if they have changed. If they do not match, for example because only one of them is new, the
    /// certificate stays.
    fn renew(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = stamps(&self.files);
        if *seen == now {
            return;
        }
        *seen = now;
        match read(&self.files) {
            Ok(new) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
                tracing::info!(file = %self.files.certificate.display(), "the certificate was renewed");
            }
            Err(error) => tracing::warn!(%error, "the new certificate cannot be used: the old one stays"),
        }
    }

    /// Renews the certificate when its files change, until it is dropped.
    pub(crate) async fn follow(&self, every: Duration) {
        loop {
            sleep(every).await;
            self.renew();
        }
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// An acceptor of TLS 1.2 and 1.3. `protocol` is announced by ALPN.
pub(crate) fn acceptor(certificate: &Arc<Certificate>, protocol: &str) -> Result<TlsAcceptor, ServerError> {
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&certificate.files.certificate, error))?;
    let resolver = Arc::clone(certificate) as Arc<dyn ResolvesServerCert>;
    let mut config = config.with_no_client_auth().with_cert_resolver(resolver);
    config.alpn_protocols = vec![protocol.into()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn read(files: &TlsFiles) -> Result<CertifiedKey, ServerError> {
    let certificates = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable(&files.certificate, error))?;
    if certificates.is_empty() {
        return Err(unusable(&files.certificate, "it contains no certificate"));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| unusable(&files.key, error))?;
    CertifiedKey::from_der(certificates, key, &aws_lc_rs::default_provider())
        .map_err(|error| unusable(&files.certificate, error))
}

fn stamps(files: &TlsFiles) -> FileStamps {
    [&files.certificate, &files.key].map(|file| {
        let metadata = fs::metadata(file).ok()?;
        Some((metadata.len(), metadata.modified().ok()))
    })
}

fn unusable(file: &Path, message: impl Display) -> ServerError {
    ServerError::Tls { file: file.to_owned(), message: message.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_names_a_file_without_a_certificate() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        let files = TlsFiles { certificate: certificate.clone(), key };
        for content in [None, Some("nothing")] {
            if let Some(content) = content {
                fs::write(&certificate, content).unwrap();
            }
            let error = Certificate::read(&files).unwrap_err();
            assert!(error.to_string().contains("cert.pem: "), "{error}");
        }
    }
}
