//! TLS: whom a program's connections trust.

use rustls::{
    AlertDescription, ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use std::{
    io,
    sync::{Arc, OnceLock},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use wasmtime_wasi_http::Error;

/// What is spoken inside.
const PROTOCOL: &[u8] = b"http/1.1";

pub(super) struct Trust {
    /// Certificates in PEM.
    authorities: Vec<u8>,
    /// Read with the first connection: most programs make none.
    config: OnceLock<Result<Arc<ClientConfig>, String>>,
}

impl Trust {
    pub(super) fn new(authorities: Vec<u8>) -> Self {
        Self { authorities, config: OnceLock::new() }
    }

    /// Agrees with who is at the other end, if a certificate says that this is the host.
    pub(super) async fn connect(&self, host: &str, stream: TcpStream) -> Result<TlsStream<TcpStream>, Error> {
        let config = self.config.get_or_init(|| config(&self.authorities));
        let config = config.as_ref().map_err(|detail| Error::InternalError(Some(detail.clone())))?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let name = ServerName::try_from(host.to_owned()).map_err(|_| Error::HttpRequestUriInvalid)?;
        TlsConnector::from(Arc::clone(config)).connect(name, stream).await.map_err(|error| explain(&error))
    }
}

fn config(authorities: &[u8]) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    // One that is damaged, or of a kind that is not known, is nobody's authority; the others are.
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(authorities).flatten());
    if roots.is_empty() {
        return Err("there is no certificate of an authority, so that no server can be trusted".to_owned());
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(Arc::new(config))
}

fn explain(error: &io::Error) -> Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(_)) => Error::TlsCertificateError,
        Some(rustls::Error::AlertReceived(alert)) => alert_received(*alert),
        Some(_) => Error::TlsProtocolError,
        None => Error::ConnectionTerminated,
    }
}

fn alert_received(alert: AlertDescription) -> Error {
    Error::TlsAlertReceived { alert_id: Some(alert.into()), alert_message: Some(format!("{alert:?}")) }
}
