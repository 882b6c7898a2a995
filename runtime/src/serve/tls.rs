//! TLS: certificates by the name that a client asks for, read again when their files change.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use anyhow::{Context, Result};
use rustls::{
    ServerConfig,
    client::verify_server_name,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::{ClientHello, ParsedCertificate, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::config::CertificateConfig;
use crate::{
    output::{self, errors},
    records::given,
};

/// The most that is read of one.
const FILE_BYTES: u64 = 1 << 20;

/// What clients may speak, the better first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// How connections are encrypted, now.
pub(super) struct Tls {
    config: RwLock<Arc<ServerConfig>>,
    files: Mutex<Files>,
}

/// Where certificates come from, and which versions of these files were seen last.
struct Files {
    certificates: Vec<CertificateConfig>,
    seen: Vec<Option<Version>>,
}

/// Of a file: its inode, its length, and when it was written.
type Version = (u64, u64, i64, i64);

impl Tls {
    /// Reads all certificates.
    pub(super) fn new(certificates: &[CertificateConfig]) -> Result<Self> {
        let seen = versions(certificates);
        let files = Files { certificates: certificates.to_vec(), seen };
        Ok(Self { config: RwLock::new(load(certificates)?), files: Mutex::new(files) })
    }

    pub(super) async fn accept(&self, socket: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let config = Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner));
        TlsAcceptor::from(config).accept(socket).await
    }

    /// Uses other certificates from now on; where they cannot be used, it stays as it was.
    pub(super) fn replace(&self, certificates: &[CertificateConfig]) -> Result<()> {
        let seen = versions(certificates);
        let config = load(certificates)?;
        *self.files.lock().unwrap_or_else(PoisonError::into_inner) =
            Files { certificates: certificates.to_vec(), seen };
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// Reads the files again if they have changed. What cannot be used is told once, and the certificates before go on.
    pub(super) fn refresh(&self) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let now = versions(&files.certificates);
        if now == files.seen {
            return;
        }
        files.seen = now;
        match load(&files.certificates) {
            Ok(config) => {
                *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
                output::note("amphora serve: certificates were read again");
            }
            Err(error) => output::note(&format!(
                "amphora serve: the certificates before are used on, as the new ones cannot be: {}",
                errors::sentence(&error)
            )),
        }
    }
}

/// Whether they can be used.
pub(super) fn check(certificates: &[CertificateConfig]) -> Result<()> {
    load(certificates).map(drop)
}

fn versions(certificates: &[CertificateConfig]) -> Vec<Option<Version>> {
    let version = |path: &PathBuf| {
        let found = fs::metadata(path).ok()?;
        Some((found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
    };
    certificates.iter().flat_map(|certificate| [&certificate.certificate, &certificate.key]).map(version).collect()
}

fn load(certificates: &[CertificateConfig]) -> Result<Arc<ServerConfig>> {
    let provider = Arc::new(ring::default_provider());
    let keys = certificates.iter().map(|certificate| certified(certificate, &provider)).collect::<Result<_>>()?;
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.context("cannot choose versions of TLS")?.with_no_client_auth();
    let mut config = builder.with_cert_resolver(Arc::new(ByName(keys)));
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
    Ok(Arc::new(config))
}

fn certified(files: &CertificateConfig, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>> {
    let (certificate, key) = (&files.certificate, &files.key);
    let chain =
        read_chain(certificate).with_context(|| format!("cannot use the certificate {}", certificate.display()))?;
    let read_key = || Ok::<_, anyhow::Error>(PrivateKeyDer::from_pem_slice(&given::read(key, FILE_BYTES)?)?);
    let private = read_key().with_context(|| format!("cannot use the key {}", key.display()))?;
    let certified = CertifiedKey::from_der(chain, private, provider)
        .with_context(|| format!("the key {} cannot be used with {}", key.display(), certificate.display()))?;
    Ok(Arc::new(certified))
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let chain = CertificateDer::pem_slice_iter(&given::read(path, FILE_BYTES)?).collect::<Result<Vec<_>, _>>()?;
    anyhow::ensure!(!chain.is_empty(), "there is none in it; expected PEM, the server's own first");
    Ok(chain)
}

/// The first one for a name, and the first of all where none is.
#[derive(Debug)]
struct ByName(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let is_for = |key: &&Arc<CertifiedKey>| {
            let parsed = key.cert.first().and_then(|own| ParsedCertificate::try_from(own).ok());
            parsed.zip(name.as_ref()).is_some_and(|(own, name)| verify_server_name(&own, name).is_ok())
        };
        self.0.iter().find(is_for).or(self.0.first()).cloned()
    }
}
