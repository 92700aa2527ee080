//! The certificate and its key.

use std::{fmt::Display, path::Path, sync::Arc};

use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

use crate::{TlsFiles, error::ServerError};

/// Reads both files. TLS 1.2 and 1.3; `protocol` is the one that is spoken inside.
pub(crate) fn acceptor(files: &TlsFiles, protocol: &str) -> Result<TlsAcceptor, ServerError> {
    let certificates = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| refused(&files.certificate, error))?;
    if certificates.is_empty() {
        return Err(refused(&files.certificate, "there is no certificate in it"));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| refused(&files.key, error))?;
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_no_client_auth().with_single_cert(certificates, key));
    let mut config = config.map_err(|error| refused(&files.certificate, error))?;
    config.alpn_protocols = vec![protocol.into()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn refused(file: &Path, message: impl Display) -> ServerError {
    ServerError::Tls { file: file.to_owned(), message: message.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_certificate_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        let files = TlsFiles { certificate: certificate.clone(), key };
        for content in [None, Some("nothing")] {
            if let Some(content) = content {
                std::fs::write(&certificate, content).unwrap();
            }
            let Err(error) = acceptor(&files, "h2") else { panic!("accepted") };
            assert!(error.to_string().contains("cert.pem: "), "{error}");
        }
    }
}
